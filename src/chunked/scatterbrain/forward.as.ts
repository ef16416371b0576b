/** Outputs, and the low-rank state after the last token. */
import { exp1, exp4, expBelow89, hsum } from '../wasm/lib/math.as';
import { tileProduct } from '../wasm/lib/product.as';
import { packMatrix, pad8, unpackMatrix } from '../wasm/lib/rows.as';
import { storeN } from '../wasm/lib/tail.as';
import { features } from './features.as';
import { layOut, LOWEST, packProjection, PAIR_ROW, Plan, TILE } from './plan.as';
import {
  addOutputs, asColumns, asPanels, behindEnd, dot4, emptySum, exactEnd, exactFirst, farEnd, gatherFloats, gatherPacked, gatherRows, inOrder, inTable,
  pairProducts, placesEnd, placesFirst, readKeys, readRoundKeys, readRoundQueries, rescaleSum, roundMasks, roundPart, scale4, scatterFloats,
  scatterPacked, sumKeys, throughEnd, timeMasks,
} from './tiles.as';

/**
 * q [*, H, E], k [*, H, E], v [*, H, V], o [*, H, V], where * counts tokens: sequence n is the queries offsets[n] to offsets[n + 1] and the keys
 * keyOffsets[n] to keyOffsets[n + 1], of which the first `slots` are of buckets of the past and the next `past` are in the order of time, before the
 * queries. projection [r, E] (r = 0: no features). sum0 [N, H, 2 r, V], ones0 [N, H, 2 r] and scale0 (int32 [N, H]): the low-rank state before them,
 * 0 for none; sum1, ones1, scale1 after them, 0: not wanted. stats [*, H, 2] is for the backward pass: c, and 1 over the sum of the weights
 * times e^-c. tables: rounds of the hash (support.ts).
 */
export function scatterbrainFwd(
  q: usize, k: usize, v: usize, projection: usize, sum0: usize, ones0: usize, scale0: usize, tables: usize, offsets: usize, keyOffsets: usize,
  o: usize, stats: usize, sum1: usize, ones1: usize, scale1: usize,
  N: i32, H: i32, E: i32, V: i32, r: i32, rounds: i32, longest: i32, longestKeys: i32,
  temp: f32, shift: f32, causal: bool, window: i32, slots: i32, past: i32, s: usize,
): void {
  const p = layOut(s, longest, longestKeys, E, V, r, rounds, false);
  setCall(p, H, temp, shift, causal, window, slots, past);
  packProjection(p, projection);
  const sumSize = <usize>(2 * r) * (<usize>V << 2), onesSize = <usize>(2 * r) << 2;
  for (let n = 0; n < N; n++, offsets += 4, keyOffsets += 4)
    for (let h = 0; h < H; h++) {
      const head = n * H + h, at = <usize>(load<i32>(offsets) * H + h);
      setHead(p, q, k, v, tables, offsets, keyOffsets, head, h);
      makeFeatures(p, q + at * (<usize>E << 2));
      const state = <usize>head;
      startSum(p, sum0 ? sum0 + state * sumSize : 0, ones0 + state * onesSize, scale0 + (state << 2));
      startRows(p);
      if (causal) timeFwd(p);
      else allFwd(p);
      for (let round = 0; round < rounds; round++) roundFwd(p, round);
      writeOutputs(p, o + at * (<usize>V << 2), stats + (at << 3));
      if (sum1) endSum(p, sum1 + state * sumSize, ones1 + state * onesSize, scale1 + (state << 2));
    }
}

// ---- What both passes begin with ------------------------------------------------------------------------------------------------------------

export function setCall(p: Plan, H: i32, temp: f32, shift: f32, causal: bool, window: i32, slots: i32, past: i32): void {
  p.H = H;
  p.temp = temp;
  p.root = sqrt<f32>(temp);
  p.shift = shift;
  p.causal = causal;
  p.window = window;
  p.slots = slots;
  p.past = past;
  p.keyRow = <usize>(H * p.E) << 2;
  p.valueRow = <usize>(H * p.V) << 2;
}

/** Keys, values and rounds of a sequence and head. */
export function setHead(p: Plan, q: usize, k: usize, v: usize, tables: usize, offsets: usize, keyOffsets: usize, head: i32, h: i32): void {
  p.T = load<i32>(offsets, 4) - load<i32>(offsets);
  p.S = load<i32>(keyOffsets, 4) - load<i32>(keyOffsets);
  const key = <usize>(load<i32>(keyOffsets) * p.H + h);
  p.q = q + <usize>(load<i32>(offsets) * p.H + h) * (<usize>p.E << 2);
  p.k = k + key * (<usize>p.E << 2);
  p.v = v + key * (<usize>p.V << 2);
  p.tables = tables;
  p.header = tables + (<usize>(head * p.rounds) << 5);
}

/** From a state (its rows are features without padding); 0: an empty one. A state of zeros is empty: it says nothing of its scale. */
export function startSum(p: Plan, sum0: usize, ones0: usize, scale0: usize): void {
  if (!p.r) return;
  emptySum(p);
  if (!sum0) return;
  if (anyOf(ones0, 2 * p.r)) loadSum(p, sum0, ones0, <f32>load<i32>(scale0));
}

export function anyOf(x: usize, n: i32): bool {
  for (let i: usize = 0; i < <usize>n; i++) if (load<f32>(x + (i << 2)) != 0) return true;
  return false;
}

/** The sum from [2 r, V] and [2 r], times e^scale. */
export function loadSum(p: Plan, sum: usize, ones: usize, scale: f32): void {
  const half = <usize>p.r << 2, padded = <usize>p.rp << 2;
  emptySum(p);
  p.sumScale = scale;
  memory.copy(p.sumOnes, ones, half);
  memory.copy(p.sumOnes + padded, ones + half, half);
  packHalf(p, sum, 0);
  packHalf(p, sum + <usize>p.r * (<usize>p.V << 2), padded << 3);
}

/** r rows of a state to the panels of the sum, `at` bytes into each. */
function packHalf(p: Plan, rows: usize, at: usize): void {
  const panel = <usize>p.mp << 5;
  for (let c = 0; c < p.Vp; c += 8)
    for (let f: usize = 0; f < <usize>p.r; f++)
      for (let e = c; e < min(p.V, c + 8); e++)
        store<f32>(p.sum + <usize>(c >> 3) * panel + at + (f << 5) + (<usize>(e - c) << 2), load<f32>(rows + ((f * <usize>p.V + <usize>e) << 2)));
}

/** The inverse of packHalf: rows times `factor`, added where `add`. */
export function unpackHalf(p: Plan, at: usize, rows: usize, factor: f32, add: bool): void {
  const panel = <usize>p.mp << 5;
  for (let c = 0; c < p.Vp; c += 8)
    for (let f: usize = 0; f < <usize>p.r; f++)
      for (let e = c; e < min(p.V, c + 8); e++) {
        const to = rows + ((f * <usize>p.V + <usize>e) << 2);
        const x = factor * load<f32>(p.sum + <usize>(c >> 3) * panel + at + (f << 5) + (<usize>(e - c) << 2));
        store<f32>(to, add ? load<f32>(to) + x : x);
      }
}

/** Features of the queries, and of the keys that are read through them. */
function makeFeatures(p: Plan, q: usize): void {
  if (!p.r) return;
  features(p, q, p.T, p.qf, p.aq, 0);
  features(p, p.k, p.S, p.kf, p.ak, p.T < 16 && p.causal ? markUsed(p) : 0);
}

/** Marks the keys whose features are read: of few queries most keys of the past are not. */
function markUsed(p: Plan): usize {
  const used = p.used;
  memory.fill(used, 0, (<usize>p.S << 2) + 16);
  for (let j = p.slots, end = p.slots + behindEnd(p); j < end; j++) store<i32>(used + (<usize>j << 2), 1);
  for (let round = 0; round < p.rounds; round++) {
    const order = inTable(p, roundPart(p, round, 4)), low = inTable(p, roundPart(p, round, 2)), high = inTable(p, roundPart(p, round, 3));
    for (let t: usize = 0; t < <usize>p.T << 2; t += 4)
      for (let place = load<i32>(low + t); place < load<i32>(high + t); place++)
        store<i32>(used + (<usize>load<i32>(order + (<usize>place << 2)) << 2), 1);
  }
  return used;
}

/**
 * seen[t]: the largest scale of a key that query t sees through features: causal, of a key behind its window or of the state; else of any.
 */
export function makeSeen(p: Plan): void {
  let most = p.causal ? p.sumScale : LOWEST, j = 0;
  const scales = p.ak + (<usize>p.slots << 2);
  if (!p.causal) for (; j < p.S; j++) most = max(most, load<f32>(scales + (<usize>j << 2)));
  for (let t = 0; t < p.T; t++) {
    if (p.causal) for (; j <= p.past + t - p.window; j++) most = max(most, load<f32>(scales + (<usize>j << 2)));
    store<f32>(p.seen + (<usize>t << 2), most);
  }
}

// ---- Rows ------------------------------------------------------------------------------------------------------------------------------------

/** c starts at the largest that features can give, so that all exponents stay at or below 0. */
function startRows(p: Plan): void {
  memory.fill(p.acc, 0, <usize>p.T * (<usize>p.Vp << 2));
  memory.fill(p.exact, 0, <usize>p.T << 2);
  memory.fill(p.low0, 0, <usize>p.T << 2);
  if (p.r) makeSeen(p);
  for (let at: usize = 0; at < <usize>p.T << 2; at += 4)
    store<f32>(p.c + at, p.r ? max(LOWEST, load<f32>(p.aq + at) + load<f32>(p.seen + at)) : LOWEST);
}

/** The rows of the tile whose numbers are in queryIndex. */
function readQueries(p: Plan): void {
  gatherRows(p.q, p.keyRow, p.queryIndex, p.E, p.tq, p.temp);
  gatherFloats(p.c, p.queryIndex, p.tc, LOWEST);
  gatherFloats(p.exact, p.queryIndex, p.tExact, 0);
  gatherFloats(p.low0, p.queryIndex, p.tLow, 0);
  gatherPacked(p.acc, <usize>p.Vp << 2, p.queryIndex, p.tAcc);
  if (p.r) gatherPacked(p.qf, <usize>p.mp << 2, p.queryIndex, p.tqf);
}

function putQueries(p: Plan): void {
  scatterFloats(p.tc, p.queryIndex, p.c);
  scatterFloats(p.tExact, p.queryIndex, p.exact);
  scatterFloats(p.tLow, p.queryIndex, p.low0);
  scatterPacked(p.tAcc, <usize>p.Vp << 2, p.queryIndex, p.acc);
}

// ---- Passes ------------------------------------------------------------------------------------------------------------------------------------

/** In the order of time: the sum over far keys, and the pairs nearer than that, exact in the window and through features behind it. */
function timeFwd(p: Plan): void {
  if (!p.r && !p.window) return;
  let done = 0;
  for (let t = 0; t < p.T; t += TILE) {
    const n = min(TILE, p.T - t), y = p.past + t, far = p.r ? farEnd(y, p.window) : y - p.window + 1;
    if (p.r) for (; done < far; done += TILE) sumKeys(p, done, done + TILE);
    inOrder(p.queryIndex, t, n);
    readQueries(p);
    if (p.r) for (let r = 0; r < n; r += 4) farFwd(p, r);
    for (let j = p.r ? far : max(0, far) & ~(TILE - 1); j < y + n; j += TILE) {
      inOrder(p.keyIndex, p.slots + j, min(TILE, p.past + p.T - j));
      readKeys(p);
      asPanels(p.tv, p.Vp, p.vPanels);
      if (p.window) asColumns(p.tk, p.Ep, p.kColumns);
      const through = p.r && throughEnd(y + n, j, p.window) > 0;
      if (through) asColumns(p.tkf, p.mp, p.fColumns);
      for (let r = 0; r < n; r += 4) {
        const first = exactFirst(y + r, j, p.window), last = exactEnd(y + r, j, p.window), seen = through ? throughEnd(y + r, j, p.window) : 0;
        const end = max(first < last ? last : 0, seen), col = seen > 0 ? 0 : first;
        if (col >= end) continue;
        timeMasks(p, p.queryIndex + (<usize>r << 2), j, col, end);
        stripFwd(p, r, col, end, first, last, 0, seen, 1, p.productMask);
      }
    }
    putQueries(p);
  }
  if (!p.r || !p.causal) return;
  for (const end = behindEnd(p); done < end; done += TILE) sumKeys(p, done, min(end, done + TILE));
}

/** All keys through features. */
function allFwd(p: Plan): void {
  if (!p.r) return;
  for (let j = 0; j < p.S; j += TILE) sumKeys(p, j, min(p.S, j + TILE));
  for (let t = 0; t < p.T; t += TILE) {
    const n = min(TILE, p.T - t);
    inOrder(p.queryIndex, t, n);
    readQueries(p);
    for (let r = 0; r < n; r += 4) farFwd(p, r);
    putQueries(p);
  }
}

/** The sum over far keys for a strip. */
function farFwd(p: Plan, r: i32): void {
  if (p.sumScale == LOWEST) return;
  const fRow = <usize>p.mp << 2, row = <usize>p.Vp << 2, f = p.tqf + <usize>r * fRow, out = p.tAcc + <usize>r * row;
  for (let c: usize = 0; c < <usize>p.Vp; c += 8)
    tileProduct(f, fRow, p.sum + c * fRow, p.mp, 0, 0, 0, 0, p.strip + (c << 2), row, false);
  for (let i: usize = 0; i < 4; i++) {
    const at = (<usize>r + i) << 2, t = load<i32>(p.queryIndex + at);
    if (t < 0) continue;
    const scale = exp1(p.sumScale + (load<f32>(p.aq + (<usize>t << 2)) - load<f32>(p.tc + at)));
    store<f32>(p.tLow + at, load<f32>(p.tLow + at) + scale * dot4(f + i * fRow, p.sumOnes, p.mp));
    const s = f32x4.splat(scale);
    for (let c: usize = 0; c < row; c += 16) {
      const to = out + i * row + c;
      v128.store(to, f32x4.add(v128.load(to), f32x4.mul(s, v128.load(p.strip + i * row + c))));
    }
  }
}

/** The pairs of a round: exact weights in place of those through features. */
function roundFwd(p: Plan, round: i32): void {
  for (let first = 0, count = roundPart(p, round, 1); first < count; first += TILE) {
    const n = readRoundQueries(p, round, first), from = placesFirst(p, round, 0, TILE), to = placesEnd(p, round, 0, TILE);
    if (from >= to) continue;
    readQueries(p);
    for (let place = from; place < to; place += TILE) {
      let read = false;
      for (let r = 0; r < n; r += 4) {
        const col = max(0, placesFirst(p, round, r, 4) - place) & ~7, end = min(TILE, pad8(placesEnd(p, round, r, 4) - place));
        if (col >= end) continue;
        if (!read) {
          readRoundKeys(p, round, place);
          readKeys(p);
          asColumns(p.tk, p.Ep, p.kColumns);
          asPanels(p.tv, p.Vp, p.vPanels);
          if (p.r) asColumns(p.tkf, p.mp, p.fColumns);
          read = true;
        }
        roundMasks(p, round, r, place, col, end);
        stripFwd(p, r, col, end, col, end, col, p.r ? end : 0, -1, p.scoreMask);
      }
    }
    putQueries(p);
  }
}

/**
 * Pairs of strip r in columns col to end: exact where scoreMask, plus `sign` times those through features where productMask; the rows take
 * them in. Scores are needed in columns `first` to `last` only, products of features in `from` to `to`.
 */
function stripFwd(p: Plan, r: i32, col: i32, end: i32, first: i32, last: i32, from: i32, to: i32, sign: f32, productMask: usize): void {
  const at = <usize>r, exact = first < last, through = from < to;
  if (exact) pairProducts(p.tq + at * (<usize>p.Ep << 2), p.Ep, p.kColumns, first, last, p.scores, PAIR_ROW);
  if (through) pairProducts(p.tqf + at * (<usize>p.mp << 2), p.mp, p.fColumns, from, to, p.products, PAIR_ROW);
  for (let i: usize = 0; i < 4; i++) {
    const t = load<i32>(p.queryIndex + ((at + i) << 2));
    if (t < 0) memory.fill(p.scores + i * PAIR_ROW + (<usize>col << 2), 0, <usize>(end - col) << 2);
    else rowFwd(p, at + i, i * PAIR_ROW, t, col, end, exact, through, sign, productMask);
  }
  addOutputs(p.scores, p.vPanels, col, end, p.tAcc + at * (<usize>p.Vp << 2), p.Vp);
}

/** Scores of a row become weights times e^-c. */
function rowFwd(
  p: Plan, row: usize, strip: usize, t: i32, col: i32, end: i32, exact: bool, through: bool, sign: f32, productMask: usize,
): void {
  const first = strip + (<usize>col << 2), stop = strip + (<usize>end << 2), lowest = f32x4.splat(-Infinity), stat = row << 2;
  let c = load<f32>(p.tc + stat), kept: f32 = 1;
  if (exact) {
    let most = f32x4.splat(c);
    for (let at = first; at < stop; at += 16) {
      const x = v128.bitselect(v128.load(p.scores + at), lowest, v128.load(p.scoreMask + at));
      v128.store(p.scores + at, x);
      most = f32x4.max(most, x);
    }
    const largest = max(
      max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)), max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)),
    );
    if (largest != c) {
      kept = exp1(c - largest);
      c = largest;
      store<f32>(p.tc + stat, c);
      scale4(p.tAcc + row * (<usize>p.Vp << 2), p.Vp, kept);
    }
  }
  const shift = f32x4.splat(c), scale = f32x4.splat(through ? load<f32>(p.aq + (<usize>t << 2)) - c : 0), signs = f32x4.splat(sign);
  let sum = f32x4.splat(0), low = sum;
  for (let at = first; at < stop; at += 16) {
    let w = f32x4.splat(0);
    if (exact) {
      w = expBelow89(f32x4.sub(v128.load(p.scores + at), shift));
      sum = f32x4.add(sum, w);
    }
    if (through) {
      const e = exp4(f32x4.pmin(f32x4.add(v128.load(p.ta + at - strip), scale), f32x4.splat(0)));
      const f = v128.and(f32x4.mul(f32x4.mul(signs, v128.load(p.products + at)), e), v128.load(productMask + at));
      low = f32x4.add(low, f);
      w = f32x4.add(w, f);
    }
    v128.store(p.scores + at, w);
  }
  store<f32>(p.tExact + stat, kept * load<f32>(p.tExact + stat) + hsum(sum));
  store<f32>(p.tLow + stat, kept * load<f32>(p.tLow + stat) + hsum(low));
}

// ---- Ends --------------------------------------------------------------------------------------------------------------------------------------

/** o = acc / (exact + low), where what is left of `low` is at least 0. A query that sees no key has o = 0. */
function writeOutputs(p: Plan, o: usize, stats: usize): void {
  for (let t: usize = 0; t < <usize>p.T; t++) {
    const sum = load<f32>(p.exact + (t << 2)) + max<f32>(0, load<f32>(p.low0 + (t << 2)));
    const inverse: f32 = sum > 0 || sum != sum ? 1 / sum : 0;
    const factor = f32x4.splat(inverse), from = p.acc + t * (<usize>p.Vp << 2);
    for (let e = 0; e < p.V; e += 4)
      storeN(o + (<usize>e << 2), f32x4.mul(factor, v128.load(from + (<usize>e << 2))), min(4, p.V - e));
    store<f32>(stats, load<f32>(p.c + (t << 2)));
    store<f32>(stats, inverse, 4);
    o += p.valueRow;
    stats += <usize>p.H << 3;
  }
}

/** The state after the last token. */
function endSum(p: Plan, sum1: usize, ones1: usize, scale1: usize): void {
  const half = <usize>p.r << 2, padded = <usize>p.rp << 2;
  unpackHalf(p, 0, sum1, 1, false);
  unpackHalf(p, padded << 3, sum1 + <usize>p.r * (<usize>p.V << 2), 1, false);
  memory.copy(ones1, p.sumOnes, half);
  memory.copy(ones1 + half, p.sumOnes + padded, half);
  store<i32>(scale1, p.sumScale == LOWEST ? 0 : <i32>p.sumScale);
}
