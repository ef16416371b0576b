/** Vector mathematics shared by all kernels. No static data: constants are immediates. */

/** a * b + c: one rounding with relaxed SIMD, two without. */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

/** Sum of the four lanes. */
// @ts-ignore: decorator
@inline
export function hsum(x: v128): f32 {
  const y = f32x4.add(x, i8x16.shuffle(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  return f32x4.extract_lane(y, 0) + f32x4.extract_lane(y, 1);
}

/**
 * exp of four floats: range reduction to |r| <= ln2 / 2, degree-6 polynomial (Cephes expf), relative error about 1e-7.
 * -Infinity and anything below -87.33 give exactly 0, above 88.37 gives Infinity, NaN stays NaN.
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  return expBelow89(f32x4.pmin(x, f32x4.splat(89.0))); // pmin(x, c) keeps NaN and is one instruction, unlike min
}

/**
 * exp4 without the upper clamp, for x <= 89. Adding 1.5 * 2^23 + 127 rounds x / ln2 to an integer n and leaves n + 127, the
 * exponent of 2^n, in the low bits. Below -87.33 these bits and r are meaningless; the last line makes such a lane 0.
 */
// @ts-ignore: decorator
@inline
export function expBelow89(x: v128): v128 {
  const t = madd(x, f32x4.splat(1.4426950408889634), f32x4.splat(12583039.0));
  const n = f32x4.sub(t, f32x4.splat(12583039.0));
  let r = madd(n, f32x4.splat(-0.693359375), x);
  r = madd(n, f32x4.splat(2.12194440e-4), r);
  return v128.andnot(f32x4.mul(expOfRemainder(r), i32x4.shl(t, 23)), f32x4.lt(x, f32x4.splat(-87.33654)));
}

// expBelow89 in two steps, 2^n and the polynomial of r, to the last bit: for long loops. As one chain of a dozen operations that wait for
// each other, so few of them fit into the processor's window that it idles; a loop over each step is a quarter faster or more (measured).

/** The first step: 2^n, exactly 0 below -87.33. */
// @ts-ignore: decorator
@inline
export function expPower(x: v128): v128 {
  return v128.andnot(i32x4.shl(expRounded(x), 23), f32x4.lt(x, f32x4.splat(-87.33654)));
}

/** The first step: r = x - n ln2; finite where 2^n is 0, too. */
// @ts-ignore: decorator
@inline
export function expRemainder(x: v128): v128 {
  const n = f32x4.sub(expRounded(x), f32x4.splat(12583039.0));
  const r = madd(n, f32x4.splat(-0.693359375), f32x4.pmax(x, f32x4.splat(-87.33654)));
  return madd(n, f32x4.splat(2.12194440e-4), r);
}

// @ts-ignore: decorator
@inline
function expRounded(x: v128): v128 {
  return madd(f32x4.pmax(x, f32x4.splat(-87.33654)), f32x4.splat(1.4426950408889634), f32x4.splat(12583039.0));
}

/** The second step: exp(r) for |r| <= ln2 / 2, to be multiplied by 2^n. */
// @ts-ignore: decorator
@inline
export function expOfRemainder(r: v128): v128 {
  let y = madd(f32x4.splat(1.9875691500e-4), r, f32x4.splat(1.3981999507e-3));
  y = madd(y, r, f32x4.splat(8.3334519073e-3));
  y = madd(y, r, f32x4.splat(4.1665795894e-2));
  y = madd(y, r, f32x4.splat(1.6666665459e-1));
  y = madd(y, r, f32x4.splat(5.0000001201e-1));
  return f32x4.add(madd(y, f32x4.mul(r, r), r), f32x4.splat(1.0));
}

// @ts-ignore: decorator
@inline
export function exp1(x: f32): f32 {
  return f32x4.extract_lane(exp4(f32x4.splat(x)), 0);
}

/** 1 / (1 + exp(-x)), relative error about 1e-7 on both sides; exp(-x) = Infinity gives 0. */
// @ts-ignore: decorator
@inline
export function sigmoid4(x: v128): v128 {
  return f32x4.div(f32x4.splat(1.0), f32x4.add(f32x4.splat(1.0), exp4(f32x4.neg(x))));
}

/** exp(-|x|). */
// @ts-ignore: decorator
@inline
export function expMinusAbs4(x: v128): v128 {
  return expBelow89(v128.or(x, i32x4.splat(<i32>0x80000000)));
}
