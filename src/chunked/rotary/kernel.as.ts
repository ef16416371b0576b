import { madd } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/**
 * y = x rotated, for consecutive tokens [H, D] of one sequence. With half = D / 2 and angle_i of the token at hand:
 * y_i = x_i cos - x_{i + half} sin, y_{i + half} = x_{i + half} cos + x_i sin; sign = -1 rotates back (the gradient).
 *
 * `now` holds the cosines, then the sines (half doubles each) of the first token, `step` those of one position: every token
 * multiplies `now` by `step`, which drifts by about 1e-16 a token. `row` is scratch for D floats.
 */
export function rotaryRotate(
  x: usize, y: usize, tokens: i32, H: i32, D: i32, now: usize, step: usize, row: usize, sign: f32,
): void {
  const half = D >> 1, halfBytes = <usize>half << 2;
  for (let t = 0; t < tokens; t++) {
    roundRow(now, row, half, sign);
    advance(now, step, half);
    for (let h = 0; h < H; h++, x += halfBytes << 1, y += halfBytes << 1) {
      const end = halfBytes & ~15;
      for (let p: usize = 0; p < end; p += 16) rotateCell(x + p, y + p, row + p, halfBytes, 4);
      if (half & 3) rotateCell(x + end, y + end, row + end, halfBytes, half & 3);
    }
  }
}

// @ts-ignore: decorator
@inline
function rotateCell(x: usize, y: usize, row: usize, halfBytes: usize, lanes: i32): void {
  const a = loadN(x, lanes), b = loadN(x + halfBytes, lanes);
  const cos = loadN(row, lanes), sin = loadN(row + halfBytes, lanes);
  storeN(y, madd(a, cos, f32x4.neg(f32x4.mul(b, sin))), lanes);
  storeN(y + halfBytes, madd(b, cos, f32x4.mul(a, sin)), lanes);
}

/** The float32 cosines and sines (times sign) of the token at hand. */
function roundRow(now: usize, row: usize, half: i32, sign: f32): void {
  const sines = now + (<usize>half << 3), rowSines = row + (<usize>half << 2);
  for (let i = 0; i < half; i++) {
    const at = <usize>i << 3, to = <usize>i << 2;
    store<f32>(row + to, <f32>load<f64>(now + at));
    store<f32>(rowSines + to, sign * <f32>load<f64>(sines + at));
  }
}

/** now *= step, as complex numbers; two channels in a vector. */
function advance(now: usize, step: usize, half: i32): void {
  const plane = <usize>half << 3;
  let i = 0;
  for (; i + 2 <= half; i += 2, now += 16, step += 16) {
    const c = v128.load(now), s = v128.load(now + plane), dc = v128.load(step), ds = v128.load(step + plane);
    v128.store(now, f64x2.sub(f64x2.mul(c, dc), f64x2.mul(s, ds)));
    v128.store(now + plane, f64x2.add(f64x2.mul(s, dc), f64x2.mul(c, ds)));
  }
  if (i < half) {
    const c = load<f64>(now), s = load<f64>(now + plane), dc = load<f64>(step), ds = load<f64>(step + plane);
    store<f64>(now, c * dc - s * ds);
    store<f64>(now + plane, s * dc + c * ds);
  }
}
