/** log1p, softplus and the slope of the sigmoid for four floats, with a small relative error also where they are tiny. */
import { expMinusAbs4, madd } from './math.as';

/**
 * log(1 + x) for 0 <= x <= 1, relative error about 1e-7 down to the smallest x; NaN stays NaN.
 * Above sqrt(2) - 1 it is log 2 + log(1 + (x - 1) / 2), exact; the rest is the degree-8 polynomial of Cephes logf.
 */
// @ts-ignore: decorator
@inline
export function log1p4(x: v128): v128 {
  const high = f32x4.gt(x, f32x4.splat(0.41421356));
  const f = v128.bitselect(f32x4.mul(f32x4.sub(x, f32x4.splat(1)), f32x4.splat(0.5)), x, high);
  let y = madd(f32x4.splat(7.0376836292e-2), f, f32x4.splat(-1.1514610310e-1));
  y = madd(y, f, f32x4.splat(1.1676998740e-1));
  y = madd(y, f, f32x4.splat(-1.2420140846e-1));
  y = madd(y, f, f32x4.splat(1.4249322787e-1));
  y = madd(y, f, f32x4.splat(-1.6668057665e-1));
  y = madd(y, f, f32x4.splat(2.0000714765e-1));
  y = madd(y, f, f32x4.splat(-2.4999993993e-1));
  y = madd(y, f, f32x4.splat(3.3333331174e-1));
  const square = f32x4.mul(f, f);
  const tail = madd(f32x4.mul(y, f), square, f32x4.mul(square, f32x4.splat(-0.5)));
  return f32x4.add(f32x4.add(f, tail), v128.and(high, f32x4.splat(0.6931471805599453)));
}

/** log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)). */
// @ts-ignore: decorator
@inline
export function softplus4(x: v128): v128 {
  return f32x4.add(f32x4.max(x, f32x4.splat(0)), log1p4(expMinusAbs4(x)));
}

/** sigmoid(x) * sigmoid(-x) = e / (1 + e)^2 with e = exp(-|x|): no 1 - s, which loses its digits where s is near 1. */
// @ts-ignore: decorator
@inline
export function sigmoidSlope4(x: v128): v128 {
  const e = expMinusAbs4(x), s = f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), e));
  return f32x4.mul(f32x4.mul(e, s), s);
}
