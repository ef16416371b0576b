/** The running softmax of a row: its largest score so far, and the sum of exp(score - largest); and what the backward pass makes of both. */
import { expBelow89, expOfRemainder, expPower, expRemainder, madd } from '../wasm/lib/math.as';
import { sums4 } from '../wasm/lib/product.as';
import { log1p4 } from '../wasm/lib/softplus.as';
import { SCORES_ROW } from './terms.as';
import { writeRows } from './tiles.as';

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

// State of a strip: running maxima [4], running sums [4].

/** Bytes of the states of n queries, a multiple of 4. */
// @ts-ignore: decorator
@inline
export function stateBytes(n: i32): usize { return <usize>n << 3; }

/** States that have seen nothing yet. */
export function startStates(states: usize, bytes: usize): void {
  for (const end = states + bytes; states < end; states += 32) {
    v128.store(states, f32x4.splat(LOWEST));
    v128.store(states, f32x4.splat(0), 16);
  }
}

/**
 * What n queries have come to: lse and rest, H floats apart, and o, H V floats apart, from outputs [n, Vp]. The states are used up.
 */
export function finishRows(
  states: usize, outputs: usize, Vp: i32, n: i32, H: i32, V: i32, o: usize, lse: usize, rest: usize,
): void {
  const row = <usize>Vp << 2, outputRow = <usize>(H * V) << 2, one = <usize>H << 2;
  for (let r = 0; r < n; r++, lse += one, rest += one) {
    const state = states + (<usize>(r >> 2) << 5) + (<usize>(r & 3) << 2);
    store<f32>(state, writeLse(load<f32>(state), load<f32>(state, 16), lse, rest));
  }
  for (let r = 0; r < n; r += 4, outputs += row << 2, o += outputRow << 2, states += 32)
    writeRows(outputs, row, min(4, n - r), V, o, outputRow, states, 4);
}

/**
 * Scores become exp(score - maximum); the state takes them in, and what was summed under an older maximum is scaled down. `powers` is the way
 * from the scores to where splitExp keeps its powers.
 */
// @ts-ignore: decorator
@inline
export function softmaxStrip(scores: usize, powers: usize, col: i32, end: i32, state: usize, out: usize, row: usize): void {
  const first = scores + (<usize>col << 2), stop = scores + (<usize>end << 2);
  const lowest = f32x4.splat(-Infinity), zero = f32x4.splat(0);
  let a = lowest, b = lowest, c = lowest, d = lowest;
  for (let p = first; p < stop; p += 16) {
    a = f32x4.max(a, v128.load(p));
    b = f32x4.max(b, v128.load(p, SCORES_ROW));
    c = f32x4.max(c, v128.load(p, 2 * SCORES_ROW));
    d = f32x4.max(d, v128.load(p, 3 * SCORES_ROW));
  }
  const before = v128.load(state), largest = f32x4.max(before, maxima4(a, b, c, d));
  const kept = expBelow89(f32x4.sub(before, largest));
  const m0 = v128.shuffle<f32>(largest, largest, 0, 0, 0, 0), m1 = v128.shuffle<f32>(largest, largest, 1, 1, 1, 1);
  const m2 = v128.shuffle<f32>(largest, largest, 2, 2, 2, 2), m3 = v128.shuffle<f32>(largest, largest, 3, 3, 3, 3);
  for (let p = first; p < stop; p += 16) {
    splitExp(f32x4.sub(v128.load(p), m0), p, p + powers);
    splitExp(f32x4.sub(v128.load(p, SCORES_ROW), m1), p + SCORES_ROW, p + SCORES_ROW + powers);
    splitExp(f32x4.sub(v128.load(p, 2 * SCORES_ROW), m2), p + 2 * SCORES_ROW, p + 2 * SCORES_ROW + powers);
    splitExp(f32x4.sub(v128.load(p, 3 * SCORES_ROW), m3), p + 3 * SCORES_ROW, p + 3 * SCORES_ROW + powers);
  }
  a = b = c = d = zero;
  for (let p = first; p < stop; p += 16) {
    const w = joinExp(p, p + powers), x = joinExp(p + SCORES_ROW, p + SCORES_ROW + powers);
    v128.store(p, w);
    v128.store(p, x, SCORES_ROW);
    a = f32x4.add(a, w);
    b = f32x4.add(b, x);
    const y = joinExp(p + 2 * SCORES_ROW, p + 2 * SCORES_ROW + powers), z = joinExp(p + 3 * SCORES_ROW, p + 3 * SCORES_ROW + powers);
    v128.store(p, y, 2 * SCORES_ROW);
    v128.store(p, z, 3 * SCORES_ROW);
    c = f32x4.add(c, y);
    d = f32x4.add(d, z);
  }
  v128.store(state, largest);
  v128.store(state, madd(v128.load(state, 16), kept, sums4(a, b, c, d)), 16);
  if (!v128.any_true(f32x4.ne(kept, f32x4.splat(1)))) return;
  scaleRow(out, row, f32x4.extract_lane(kept, 0));
  scaleRow(out + row, row, f32x4.extract_lane(kept, 1));
  scaleRow(out + 2 * row, row, f32x4.extract_lane(kept, 2));
  scaleRow(out + 3 * row, row, f32x4.extract_lane(kept, 3));
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

/** P = exp(score - lse) and dS = P (dP - delta) in place, for a strip. */
export function weightsBwd(P: usize, dS: usize, col: i32, end: i32, statistics: usize, powers: usize): void {
  const first = <usize>col << 2, stop = <usize>end << 2;
  for (const last = statistics + 16; statistics < last; statistics += 4, P += SCORES_ROW, dS += SCORES_ROW) {
    const lse = v128.load_splat<f32>(statistics), rest = v128.load_splat<f32>(statistics, 256);
    const delta = v128.load_splat<f32>(statistics, 512);
    for (let c = first; c < stop; c += 16) splitExp(f32x4.sub(f32x4.sub(v128.load(P + c), lse), rest), P + c, powers + c);
    for (let c = first; c < stop; c += 16) {
      const p = joinExp(P + c, powers + c);
      v128.store(P + c, p);
      v128.store(dS + c, f32x4.mul(p, f32x4.sub(v128.load(dS + c), delta)));
    }
  }
}
