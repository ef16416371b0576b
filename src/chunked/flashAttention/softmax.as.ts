/** The running softmax of a row: its largest score so far, and the sum of exp(score - largest). */
import { expOfRemainder, expPower, expRemainder } from '../wasm/lib/math.as';
import { log1p4 } from '../wasm/lib/softplus.as';
import { SCORES_ROW } from './terms.as';

/** Where a running maximum starts: finite, so that differences of maxima are never Infinity - Infinity. */
// @ts-ignore: decorator
@inline
export const LOWEST: f32 = -3e38;

/** From a strip's scores to the powers of two that splitExp keeps: the scores of 4 queries. */
// @ts-ignore: decorator
@inline
export const POWERS: usize = 4 * SCORES_ROW;

/** The first step of exp(x): its remainder to `at`, its power to `power`. */
// @ts-ignore: decorator
@inline
export function splitExp(x: v128, at: usize, power: usize): void {
  v128.store(at, expRemainder(x));
  v128.store(power, expPower(x));
}

/** The second step. */
// @ts-ignore: decorator
@inline
export function joinExp(at: usize, power: usize): v128 { return f32x4.mul(expOfRemainder(v128.load(at)), v128.load(power)); }

/** The largest lanes of four vectors, as one vector. */
// @ts-ignore: decorator
@inline
export function maxima4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.max(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.max(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7));
  return f32x4.max(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
}

// @ts-ignore: decorator
@inline
export function scaleRow(out: usize, row: usize, factor: f32): void {
  const f = f32x4.splat(factor);
  for (const end = out + row; out < end; out += 16) v128.store(out, f32x4.mul(f, v128.load(out)));
}

/** log(x) for finite x >= 1: x = 2^e f with f in [1, 2). */
function logAbove1(x: f32): f32 {
  const bits = reinterpret<i32>(x), e = (bits >> 23) - 127;
  const f = reinterpret<f32>((bits & 0x007fffff) | 0x3f800000);
  const log = f32x4.extract_lane(log1p4(f32x4.splat(f - 1)), 0);
  return <f32>(<f64>e * 0.6931471805599453 + <f64>log);
}

/**
 * lse = maximum + log(sum), and what rounding took from it: their sum is exact to about 1e-7, however large the maximum. -Infinity for a
 * query that saw no key. Returns what its outputs are to be multiplied by: 1 / sum, or 0.
 */
// @ts-ignore: decorator
@inline
export function writeLse(largest: f32, sum: f32, lse: usize, rest: usize): f32 {
  if (sum == 0) {
    store<f32>(lse, -Infinity);
    store<f32>(rest, 0);
    return 0;
  }
  const exact = <f64>largest + (sum < Infinity ? <f64>logAbove1(sum) : <f64>sum), rounded = <f32>exact;
  store<f32>(lse, rounded);
  store<f32>(rest, <f32>(exact - <f64>rounded));
  return 1 / sum;
}
