/** What the backward pass keeps of each query beside its scores: lse, rest, and delta = dO . o - dLse, for 64 queries each 256 bytes. */
import { hsum, madd } from '../wasm/lib/math.as';
import { loadN } from '../wasm/lib/tail.as';
import { QUERIES } from './tiles.as';

/** Bytes of the statistics of 64 queries. */
// @ts-ignore: decorator
@inline
export const STATISTICS: usize = 3 * 256;

/** Those of n (up to 64) queries, whose outputs are `row` bytes apart and their numbers `one`. */
export function packStatistics(
  o: usize, dO: usize, lse: usize, rest: usize, dLse: usize, n: i32, V: i32, row: usize, one: usize, to: usize,
): void {
  for (let r = 0; r < QUERIES; r++, to += 4) {
    const real = r < n;
    store<f32>(to, real && load<f32>(lse) != -Infinity ? load<f32>(lse) : Infinity); // no query, no key: weights exp(-Infinity) = 0
    store<f32>(to, real ? load<f32>(rest) : 0, 256);
    store<f32>(to, real ? dot(o, dO, V) - load<f32>(dLse) : 0, 512);
    if (!real) continue;
    o += row;
    dO += row;
    lse += one;
    rest += one;
    dLse += one;
  }
}

function dot(a: usize, b: usize, n: i32): f32 {
  const full = <usize>(n & ~3) << 2;
  let sum = f32x4.splat(0), p: usize = 0;
  for (; p < full; p += 16) sum = madd(v128.load(a + p), v128.load(b + p), sum);
  if (n & 3) sum = madd(loadN(a + p, n & 3), loadN(b + p, n & 3), sum);
  return hsum(sum);
}
