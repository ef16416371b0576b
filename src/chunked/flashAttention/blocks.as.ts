/**
 * What the passes with native products share: the scores of up to 256 queries and 64 keys are one product by the system's BLAS, whose vectors
 * are wider than WebAssembly's. Between the products all is as in the tiles: a row of scores has 64 columns, in strips of 4 queries.
 *
 * Rows here are as long as they are wide: W = rank + K floats for factors and q (or k), the factors first.
 */
import { SCORES_ROW } from './terms.as';
import { endColumn, firstColumn, KEYS } from './tiles.as';

/** Queries in a block: with fewer the products are slower, with more their scores leave the second cache. */
// @ts-ignore: decorator
@inline
export const BLOCK: i32 = 256;

/**
 * C = op(A) op(B), or C += op(A) op(B): `multiplyWithin` of the native library (runtime.ts). A [M, K], B [K, N], C [M, N], stored transposed where
 * so said; the strides of their rows are in floats.
 */
// @ts-ignore: decorator
@external('env', 'product')
export declare function product(
  a: usize, strideA: i32, b: usize, strideB: i32, c: usize, strideC: i32, M: i32, N: i32, K: i32, transposeA: bool, transposeB: bool, add: bool,
): void;

/** Where the strips begin, of n queries from query t, that see a key of the tile from key j. */
export function firstStrip(t: i32, n: i32, j: i32, S: i32, shift: i32, causal: bool): i32 {
  let r = 0;
  while (r < n && endColumn(t + r, j, S, shift, causal) <= 0) r += 4;
  return r;
}

/** Where they end. */
export function endStrip(t: i32, n: i32, j: i32, shift: i32, window: i32): i32 {
  let stop = (n + 3) & ~3;
  while (stop > 0 && firstColumn(t + stop - 4, j, shift, window) >= KEYS) stop -= 4;
  return stop;
}

/** Zeros in a strip's columns before `col` and from `end`, which a product of whole rows reads, too. */
export function clearOutside(strip: usize, col: i32, end: i32): void {
  if (col == 0 && end == KEYS) return;
  const before = <usize>max(0, min(col, KEYS)) << 2, after = <usize>max(0, end) << 2;
  for (let r = 0; r < 4; r++, strip += SCORES_ROW) {
    memory.fill(strip, 0, before);
    memory.fill(strip + after, 0, SCORES_ROW - after);
  }
}
