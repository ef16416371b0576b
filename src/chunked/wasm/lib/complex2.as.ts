/**
 * Complex numbers, two in a pair of vectors of doubles: real parts and imaginary parts apart. In memory they are float32 [re, im], and `count`
 * says whether there are two or one, beside a zero.
 */
import { pair } from './double.as';
import { madd2 } from './exponential.as';

/** Re and Im of (a + ib) (c + id). */
// @ts-ignore: decorator
@inline
export function timesRe(a: v128, b: v128, c: v128, d: v128): v128 {
  return f64x2.sub(f64x2.mul(a, c), f64x2.mul(b, d));
}

// @ts-ignore: decorator
@inline
export function timesIm(a: v128, b: v128, c: v128, d: v128): v128 {
  return madd2(a, d, f64x2.mul(b, c));
}

/** Re and Im of conj(a + ib) (c + id). */
// @ts-ignore: decorator
@inline
export function againstRe(a: v128, b: v128, c: v128, d: v128): v128 {
  return madd2(a, c, f64x2.mul(b, d));
}

// @ts-ignore: decorator
@inline
export function againstIm(a: v128, b: v128, c: v128, d: v128): v128 {
  return f64x2.sub(f64x2.mul(a, d), f64x2.mul(b, c));
}

/** Two complex numbers [re, im, re, im], or one and a zero. */
// @ts-ignore: decorator
@inline
export function loadModes(p: usize, count: i32): v128 {
  return count == 2 ? v128.load(p) : v128.load64_zero(p);
}

// @ts-ignore: decorator
@inline
export function real(modes: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<f32>(modes, modes, 0, 2, 0, 2));
}

// @ts-ignore: decorator
@inline
export function imaginary(modes: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<f32>(modes, modes, 1, 3, 1, 3));
}

// @ts-ignore: decorator
@inline
export function storeModes(p: usize, re: v128, im: v128, count: i32): void {
  const both = pair(re, im), modes = v128.shuffle<f32>(both, both, 0, 2, 1, 3);
  if (count == 2) v128.store(p, modes);
  else v128.store64_lane(p, modes, 0);
}

/** Adds two complex numbers to the doubles at p. */
// @ts-ignore: decorator
@inline
export function addModes(p: usize, re: v128, im: v128, count: i32): void {
  v128.store(p, f64x2.add(v128.load(p), v128.shuffle<f64>(re, im, 0, 2)));
  if (count == 2) v128.store(p, f64x2.add(v128.load(p, 16), v128.shuffle<f64>(re, im, 1, 3)), 16);
}
