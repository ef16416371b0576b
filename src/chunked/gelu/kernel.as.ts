/** GELU: y = x * P(x), P the normal distribution function Phi or its tanh approximation, which is sigmoid(2u). */
import { expBelow89, madd, sigmoid4 } from '../wasm/lib/math.as';
import { sigmoidSlope4 } from '../wasm/lib/softplus.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

export function geluFwd(x: usize, y: usize, n: i32, tanh: i32): void {
  const end = x + (<usize>(n & ~3) << 2);
  if (tanh) {
    for (; x < end; x += 16, y += 16) forwardTanh(x, y, 4);
    if (n & 3) forwardTanh(x, y, n & 3);
  } else {
    for (; x < end; x += 16, y += 16) forwardErf(x, y, 4);
    if (n & 3) forwardErf(x, y, n & 3);
  }
}

/** dx = dy * (P + x * P'). */
export function geluBwd(x: usize, dy: usize, dx: usize, n: i32, tanh: i32): void {
  const end = x + (<usize>(n & ~3) << 2);
  if (tanh) {
    for (; x < end; x += 16, dy += 16, dx += 16) backwardTanh(x, dy, dx, 4);
    if (n & 3) backwardTanh(x, dy, dx, n & 3);
  } else {
    for (; x < end; x += 16, dy += 16, dx += 16) backwardErf(x, dy, dx, 4);
    if (n & 3) backwardErf(x, dy, dx, n & 3);
  }
}

// @ts-ignore: decorator
@inline
function forwardErf(x: usize, y: usize, lanes: i32): void {
  const v = loadN(x, lanes), a = f32x4.pmin(f32x4.abs(v), f32x4.splat(16.0));
  storeN(y, f32x4.mul(v, distribution(v, a, gauss(a))), lanes);
}

// @ts-ignore: decorator
@inline
function backwardErf(x: usize, dy: usize, dx: usize, lanes: i32): void {
  const v = loadN(x, lanes), a = f32x4.pmin(f32x4.abs(v), f32x4.splat(16.0)), e = gauss(a);
  const xDensity = f32x4.mul(f32x4.mul(withSign(a, v), e), f32x4.splat(0.3989422804014327));
  storeN(dx, f32x4.mul(loadN(dy, lanes), f32x4.add(distribution(v, a, e), xDensity)), lanes);
}

/**
 * exp(-a^2 / 2) for 0 <= a <= 16. A rounding error of a^2 would be one part in 2^17 of the result: the error is found exactly, from the
 * halves of a, and its factor 1 - error / 2 put on.
 */
// @ts-ignore: decorator
@inline
function gauss(a: v128): v128 {
  const high = v128.and(a, i32x4.splat(<i32>0xfffff000)), low = f32x4.sub(a, high), square = f32x4.mul(a, a);
  const cross = f32x4.mul(f32x4.add(high, high), low);
  const error = f32x4.add(f32x4.add(f32x4.sub(f32x4.mul(high, high), square), cross), f32x4.mul(low, low));
  const e = expBelow89(f32x4.mul(square, f32x4.splat(-0.5)));
  return madd(f32x4.mul(e, f32x4.splat(-0.5)), error, e);
}

/** Phi(x) from a = |x| and e = exp(-a^2 / 2); Phi(-a) = e * a polynomial in 1 / (1 + 0.35 a), of relative error 3.2e-8. */
// @ts-ignore: decorator
@inline
function distribution(x: v128, a: v128, e: v128): v128 {
  const t = f32x4.div(f32x4.splat(1.0), madd(a, f32x4.splat(0.35), f32x4.splat(1.0)));
  let y = madd(t, f32x4.splat(-0.02914613), f32x4.splat(0.14397268));
  y = madd(y, t, f32x4.splat(-0.25571626));
  y = madd(y, t, f32x4.splat(0.15917644));
  y = madd(y, t, f32x4.splat(-0.02311138));
  y = madd(y, t, f32x4.splat(0.10550865));
  y = madd(y, t, f32x4.splat(0.11983271));
  y = madd(y, t, f32x4.splat(0.1398619));
  y = madd(y, t, f32x4.splat(0.1396214));
  const tail = f32x4.mul(f32x4.mul(y, t), e);
  return v128.bitselect(tail, f32x4.sub(f32x4.splat(1.0), tail), f32x4.lt(x, f32x4.splat(0)));
}

// @ts-ignore: decorator
@inline
function withSign(a: v128, sign: v128): v128 {
  return v128.or(a, v128.and(sign, i32x4.splat(<i32>0x80000000)));
}

/** 2u = sqrt(8 / pi) * (c + 0.044715 c^3); the caller keeps c within +-12, where sigmoid(2u) is 0 or 1. */
// @ts-ignore: decorator
@inline
function twiceU(c: v128): v128 {
  const inner = madd(f32x4.mul(c, c), f32x4.splat(0.044715), f32x4.splat(1.0));
  return f32x4.mul(f32x4.mul(c, inner), f32x4.splat(1.5957691216057308));
}

/** x within +-12; NaN stays NaN. */
// @ts-ignore: decorator
@inline
function clipped(x: v128): v128 {
  return f32x4.max(f32x4.min(x, f32x4.splat(12.0)), f32x4.splat(-12.0));
}

// @ts-ignore: decorator
@inline
function forwardTanh(x: usize, y: usize, lanes: i32): void {
  const v = loadN(x, lanes);
  storeN(y, f32x4.mul(v, sigmoid4(twiceU(clipped(v)))), lanes);
}

// @ts-ignore: decorator
@inline
function backwardTanh(x: usize, dy: usize, dx: usize, lanes: i32): void {
  const c = clipped(loadN(x, lanes)), z = twiceU(c);
  const slope = madd(f32x4.mul(c, c), f32x4.splat(0.134145), f32x4.splat(1.0)); // of z, over sqrt(8 / pi)
  const xSlope = f32x4.mul(f32x4.mul(c, slope), f32x4.splat(1.5957691216057308));
  storeN(dx, f32x4.mul(loadN(dy, lanes), madd(xSlope, sigmoidSlope4(z), sigmoid4(z))), lanes);
}
