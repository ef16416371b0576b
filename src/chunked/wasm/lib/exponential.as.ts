/**
 * exp, sin and cos of two doubles: for angles and exponents that grow with the length of a sequence, where float32 has no digits left
 * for the turns. No static data: polynomials with immediates.
 */

/** a * b + c of doubles: one rounding with relaxed SIMD, two without. */
// @ts-ignore: decorator
@inline
export function madd2(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f64x2.relaxed_madd(a, b, c);
  return f64x2.add(f64x2.mul(a, b), c);
}

/** 1.5 * 2^52: adding it rounds to an integer, which then stands in the low bits. */
// @ts-ignore: decorator
@inline
const ROUND: f64 = 6755399441055744.0;

/**
 * exp of two doubles, relative error below 1e-14: |r| <= ln2 / 2 and the Taylor polynomial of degree 11. Below -708 exactly 0, above
 * 709.7 Infinity, NaN stays NaN.
 */
// @ts-ignore: decorator
@inline
export function exp2(x: v128): v128 {
  const top = f64x2.pmin(x, f64x2.splat(709.79));
  const t = madd2(top, f64x2.splat(1.4426950408889634), f64x2.splat(ROUND));
  const n = f64x2.sub(t, f64x2.splat(ROUND));
  let r = madd2(n, f64x2.splat(-6.93147180369123816490e-1), top); // 33 bits: n times it is exact
  r = madd2(n, f64x2.splat(-1.90821492927058770002e-10), r);
  let y = madd2(f64x2.splat(2.505210838544172e-8), r, f64x2.splat(2.755731922398589e-7));
  y = madd2(y, r, f64x2.splat(2.7557319223985893e-6));
  y = madd2(y, r, f64x2.splat(2.48015873015873e-5));
  y = madd2(y, r, f64x2.splat(1.984126984126984e-4));
  y = madd2(y, r, f64x2.splat(1.3888888888888889e-3));
  y = madd2(y, r, f64x2.splat(8.333333333333333e-3));
  y = madd2(y, r, f64x2.splat(4.1666666666666664e-2));
  y = madd2(y, r, f64x2.splat(1.6666666666666666e-1));
  y = madd2(y, r, f64x2.splat(0.5));
  y = madd2(y, r, f64x2.splat(1));
  y = madd2(y, r, f64x2.splat(1));
  const half = i64x2.shl(i64x2.add(t, i64x2.splat(1022)), 52); // 2^(n - 1): 2^1024 would be no number
  return v128.andnot(f64x2.mul(f64x2.mul(y, half), f64x2.splat(2)), f64x2.lt(x, f64x2.splat(-708)));
}

/**
 * The quarter turn nearest to each angle, in the low bits of what is returned; for `remainder2`, `sin2` and `cos2`. Their error is below 3e-16 up to
 * |x| = 1.6e6 (2^20 quarters), below 2e-16 |x| beyond; above 7e15 the result is meaningless.
 */
// @ts-ignore: decorator
@inline
export function quarters2(x: v128): v128 {
  return madd2(x, f64x2.splat(0.6366197723675814), f64x2.splat(ROUND));
}

/** The angle less its quarter turns, |r| <= pi / 4. pi / 2 in three parts, the first two of 33 bits, so that products with up to 2^20 quarters are exact. */
// @ts-ignore: decorator
@inline
export function remainder2(x: v128, quarters: v128): v128 {
  const n = f64x2.sub(quarters, f64x2.splat(ROUND));
  let r = madd2(n, f64x2.splat(-1.57079632673412561417e0), x);
  r = madd2(n, f64x2.splat(-6.07710050630396597660e-11), r);
  return madd2(n, f64x2.splat(-2.02226624879595063154e-21), r);
}

/** The angle less its whole turns, from -pi to pi. */
// @ts-ignore: decorator
@inline
export function withoutTurns2(x: v128): v128 {
  const turns = f64x2.sub(madd2(x, f64x2.splat(0.15915494309189535), f64x2.splat(ROUND)), f64x2.splat(ROUND));
  return remainder2(x, madd2(turns, f64x2.splat(4), f64x2.splat(ROUND)));
}

/** sin of a remainder (the polynomial of fdlibm). */
// @ts-ignore: decorator
@inline
export function sinPart2(r: v128): v128 {
  const z = f64x2.mul(r, r);
  let y = madd2(f64x2.splat(1.58969099521155010221e-10), z, f64x2.splat(-2.50507602534068634195e-8));
  y = madd2(y, z, f64x2.splat(2.75573137070700676789e-6));
  y = madd2(y, z, f64x2.splat(-1.98412698298579493134e-4));
  y = madd2(y, z, f64x2.splat(8.33333333332248946124e-3));
  y = madd2(y, z, f64x2.splat(-1.66666666666666324348e-1));
  return madd2(f64x2.mul(y, z), r, r);
}

/** cos of a remainder (the polynomial of fdlibm). */
// @ts-ignore: decorator
@inline
export function cosPart2(r: v128): v128 {
  const z = f64x2.mul(r, r);
  let y = madd2(f64x2.splat(-1.13596475577881948265e-11), z, f64x2.splat(2.08757232129817482790e-9));
  y = madd2(y, z, f64x2.splat(-2.75573143513906633035e-7));
  y = madd2(y, z, f64x2.splat(2.48015872894767294178e-5));
  y = madd2(y, z, f64x2.splat(-1.38888888888741095749e-3));
  y = madd2(y, z, f64x2.splat(4.16666666666666019037e-2));
  y = madd2(y, z, f64x2.splat(-0.5));
  return madd2(y, z, f64x2.splat(1));
}

/** sin of the angle from the parts of its remainder and its quarters. */
// @ts-ignore: decorator
@inline
export function sin2(sinPart: v128, cosPart: v128, quarters: v128): v128 {
  const value = v128.bitselect(cosPart, sinPart, oddQuarters(quarters));
  return v128.xor(value, i64x2.shl(v128.and(quarters, i64x2.splat(2)), 62));
}

/** cos of the angle, which is the sine one quarter on. */
// @ts-ignore: decorator
@inline
export function cos2(sinPart: v128, cosPart: v128, quarters: v128): v128 {
  return sin2(sinPart, cosPart, i64x2.add(quarters, i64x2.splat(1)));
}

/** All bits set where the number of quarters is odd. */
// @ts-ignore: decorator
@inline
function oddQuarters(quarters: v128): v128 {
  return i64x2.sub(i64x2.splat(0), v128.and(quarters, i64x2.splat(1)));
}
