/** Between pairs of floats in memory and vectors of two doubles. */

/** The two floats at p + offset, as doubles. */
// @ts-ignore: decorator
@inline
export function low(p: usize, offset: usize): v128 {
  return f64x2.promote_low_f32x4(v128.load64_zero(p + offset));
}

/** Four floats from two pairs of doubles. */
// @ts-ignore: decorator
@inline
export function pair(a: v128, b: v128): v128 {
  const x = f32x4.demote_f64x2_zero(a), y = f32x4.demote_f64x2_zero(b);
  return i8x16.shuffle(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
}
