/**
 * Loads and stores of four floats, or of the last 1 to 3 of a row: no byte past the end is touched.
 * Called with a literal 4 the choice folds away, so one inlined body serves a loop and its tail.
 */

/** The first `n` (1 to 4) floats at `p`; missing lanes are 0. */
// @ts-ignore: decorator
@inline
export function loadN(p: usize, n: i32): v128 {
  if (n >= 4) return v128.load(p);
  if (n == 1) return v128.load_zero<f32>(p);
  const pair = v128.load_zero<f64>(p);
  return n == 2 ? pair : v128.load_lane<f32>(p + 8, pair, 2);
}

/** Stores the first `n` (1 to 4) lanes of `x` at `p`. */
// @ts-ignore: decorator
@inline
export function storeN(p: usize, x: v128, n: i32): void {
  if (n >= 4) {
    v128.store(p, x);
  } else if (n == 1) {
    v128.store_lane<f32>(p, x, 0);
  } else {
    v128.store_lane<f64>(p, x, 0);
    if (n == 3) v128.store_lane<f32>(p + 8, x, 2);
  }
}

/** Copies n floats. */
// @ts-ignore: decorator
@inline
export function copyRow(from: usize, to: usize, n: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4, from += 16, to += 16) v128.store(to, v128.load(from));
  if (i < n) storeN(to, loadN(from, n - i), n - i);
}
