import { low } from '../wasm/lib/double.as';
import { madd } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** Sum of squares of n floats, in float64: no square overflows, so it is finite exactly when all of x is. */
export function adamWSquares(x: usize, n: i32): f64 {
  let a = f64x2.splat(0), b = a, c = a, d = a;
  const end = x + (<usize>n << 2), blocks = x + (<usize>(n & ~7) << 2);
  for (; x < blocks; x += 32) {
    const p = low(x, 0), q = low(x, 8), r = low(x, 16), s = low(x, 24);
    a = f64x2.add(a, f64x2.mul(p, p));
    b = f64x2.add(b, f64x2.mul(q, q));
    c = f64x2.add(c, f64x2.mul(r, r));
    d = f64x2.add(d, f64x2.mul(s, s));
  }
  const all = f64x2.add(f64x2.add(a, b), f64x2.add(c, d));
  let sum = f64x2.extract_lane(all, 0) + f64x2.extract_lane(all, 1);
  for (; x < end; x += 4) sum += <f64>load<f32>(x) * <f64>load<f32>(x);
  return sum;
}

/**
 * In place on w, m and v (n floats each), with g' = gradScale * g:
 * m = blend(m, g', beta1), v = blend(v, g'^2, beta2), w -= rate * m / (vScale * sqrt(v) + eps) + decay * w.
 */
export function adamWUpdate(
  w: usize, g: usize, m: usize, v: usize, n: i32,
  gradScale: f32, beta1: f64, beta2: f64, vScale: f32, eps: f32, rate: f32, decay: f32,
): void {
  const end = (<usize>n << 2) & ~15;
  const gs = f32x4.splat(gradScale), vs = f32x4.splat(vScale), e = f32x4.splat(eps), r = f32x4.splat(rate), d = f32x4.splat(decay);
  const mStep = f32x4.splat(<f32>min(beta1, 1 - beta1)), vStep = f32x4.splat(<f32>min(beta2, 1 - beta2));
  const mOld = beta1 >= 0.5, vOld = beta2 >= 0.5;
  for (let p: usize = 0; p < end; p += 16)
    updateCell(w + p, g + p, m + p, v + p, gs, mStep, mOld, vStep, vOld, vs, e, r, d, 4);
  if (n & 3) updateCell(w + end, g + end, m + end, v + end, gs, mStep, mOld, vStep, vOld, vs, e, r, d, n & 3);
}

// @ts-ignore: decorator
@inline
function updateCell(
  w: usize, g: usize, m: usize, v: usize, gradScale: v128, mStep: v128, mOld: bool, vStep: v128, vOld: bool,
  vScale: v128, eps: v128, rate: v128, decay: v128, lanes: i32,
): void {
  const grad = f32x4.mul(gradScale, loadN(g, lanes)), w0 = loadN(w, lanes);
  const m1 = blend(loadN(m, lanes), grad, mStep, mOld), v1 = blend(loadN(v, lanes), f32x4.mul(grad, grad), vStep, vOld);
  storeN(m, m1, lanes);
  storeN(v, v1, lanes);
  const ratio = f32x4.div(m1, madd(vScale, f32x4.sqrt(v1), eps));
  storeN(w, f32x4.sub(w0, madd(rate, ratio, f32x4.mul(decay, w0))), lanes);
}

/**
 * beta * old + (1 - beta) * now, as a step from the one that counts more (`old` when beta >= 0.5), with `step` the lesser of beta and
 * 1 - beta: no bias of two coefficients that do not add up to 1 in float32, and no digits lost where the other one is much larger.
 */
// @ts-ignore: decorator
@inline
function blend(old: v128, now: v128, step: v128, fromOld: bool): v128 {
  return fromOld ? madd(step, f32x4.sub(now, old), old) : madd(step, f32x4.sub(old, now), now);
}
