import { madd, sigmoid4 } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** y = silu(gate) * up: `rows` rows of n floats, `stride` bytes apart in gate and up, dense in y. */
export function swiGluFwd(gate: usize, up: usize, y: usize, rows: i32, n: i32, stride: usize): void {
  const width = <usize>n << 2, full = width & ~15;
  for (let row = 0; row < rows; row++, gate += stride, up += stride, y += width) {
    for (let p: usize = 0; p < full; p += 16) forward(gate + p, up + p, y + p, 4);
    if (n & 3) forward(gate + full, up + full, y + full, n & 3);
  }
}

/**
 * With s = sigmoid(gate): dgate = dy * up * s * (1 + gate * (1 - s)), dup = dy * gate * s; the gradients lie as gate and up do.
 */
export function swiGluBwd(
  gate: usize, up: usize, dy: usize, dgate: usize, dup: usize, rows: i32, n: i32, stride: usize,
): void {
  const width = <usize>n << 2, full = width & ~15;
  for (let row = 0; row < rows; row++) {
    for (let p: usize = 0; p < full; p += 16) backward(gate + p, up + p, dy + p, dgate + p, dup + p, 4);
    if (n & 3) backward(gate + full, up + full, dy + full, dgate + full, dup + full, n & 3);
    gate += stride;
    up += stride;
    dgate += stride;
    dup += stride;
    dy += width;
  }
}

// @ts-ignore: decorator
@inline
function forward(gate: usize, up: usize, y: usize, lanes: i32): void {
  const g = loadN(gate, lanes);
  storeN(y, f32x4.mul(f32x4.mul(g, sigmoid4(g)), loadN(up, lanes)), lanes);
}

// @ts-ignore: decorator
@inline
function backward(gate: usize, up: usize, dy: usize, dgate: usize, dup: usize, lanes: i32): void {
  const g = loadN(gate, lanes), s = sigmoid4(g), d = f32x4.mul(loadN(dy, lanes), s);
  const slope = madd(g, f32x4.sub(f32x4.splat(1.0), s), f32x4.splat(1.0));
  storeN(dgate, f32x4.mul(f32x4.mul(d, loadN(up, lanes)), slope), lanes);
  storeN(dup, f32x4.mul(d, g), lanes);
}
