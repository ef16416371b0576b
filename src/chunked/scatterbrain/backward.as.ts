/**
 * Gradients. For every pair b = gyn_i . v_j - mean_i is the gradient on the logarithm of its weight over the weight, where gyn = dO / sum of weights
 * and mean = gyn . o. It goes through scores where the pair is exact, through features where it is not (README, section 5).
 */
import { exp1, exp4, expBelow89 } from '../wasm/lib/math.as';
import { panelUpdate, tileProduct } from '../wasm/lib/product.as';
import { packRows, pad8, transposePanels } from '../wasm/lib/rows.as';
import { storeN } from '../wasm/lib/tail.as';
import { features, featuresBwd } from './features.as';
import { anyOf, loadSum, setCall, setHead, startSum, unpackHalf } from './forward.as';
import { layOut, LOWEST, packProjection, PAIR_ROW, Plan, TILE, TILE_PANEL } from './plan.as';
import {
  addOutputs, addPanels, addToSum, asColumns, asPanels, behindEnd, dot4, emptySum, exactEnd, exactFirst, farEnd, gatherFloats, gatherPacked,
  gatherRows, inOrder, pairProducts, placesEnd, placesFirst, readKeys, readRoundKeys, readRoundQueries, roundMasks, roundPart, scale4,
  scatterPacked, sumKeys, throughEnd, timeMasks, toWeights,
} from './tiles.as';

/**
 * As scatterbrainFwd, whose o, stats and scale1 it takes; dO [*, H, V], and dSum1, dOnes1 on the state after the last token (0: none). Writes dq, dk, dv,
 * and, where they are not 0, dSum0 and dOnes0.
 */
export function scatterbrainBwd(
  q: usize, k: usize, v: usize, projection: usize, sum0: usize, ones0: usize, scale0: usize, tables: usize, offsets: usize, keyOffsets: usize,
  o: usize, stats: usize, scale1: usize, dO: usize, dSum1: usize, dOnes1: usize,
  dq: usize, dk: usize, dv: usize, dSum0: usize, dOnes0: usize,
  N: i32, H: i32, E: i32, V: i32, r: i32, rounds: i32, longest: i32, longestKeys: i32,
  temp: f32, shift: f32, causal: bool, window: i32, slots: i32, past: i32, s: usize,
): void {
  const p = layOut(s, longest, longestKeys, E, V, r, rounds, true);
  setCall(p, H, temp, shift, causal, window, slots, past);
  packProjection(p, projection);
  const sumSize = <usize>(2 * r) * (<usize>V << 2), onesSize = <usize>(2 * r) << 2;
  for (let n = 0; n < N; n++, offsets += 4, keyOffsets += 4)
    for (let h = 0; h < H; h++) {
      const head = n * H + h, at = <usize>(load<i32>(offsets) * H + h), keyAt = <usize>(load<i32>(keyOffsets) * H + h), state = <usize>head;
      setHead(p, q, k, v, tables, offsets, keyOffsets, head, h);
      if (r) {
        features(p, p.q, p.T, p.qf, p.aq, 0);
        features(p, p.k, p.S, p.kf, p.ak, 0);
      }
      startSum(p, sum0 ? sum0 + state * sumSize : 0, ones0 + state * onesSize, scale0 + (state << 2));
      startRowsBwd(p, o + at * (<usize>V << 2), dO + at * (<usize>V << 2), stats + (at << 3));
      if (causal) timeBwd(p);
      else allBwd(p);
      for (let round = 0; round < rounds; round++) roundBwd(p, round);
      if (r) {
        const begin = !sum0 || !anyOf(ones0 + state * onesSize, 2 * r) ? LOWEST : <f32>load<i32>(scale0 + (state << 2)), last = scale1 ? <f32>load<i32>(scale1 + (state << 2)) : 0;
        endBwd(
          p, dSum1 ? dSum1 + state * sumSize : 0, dOnes1 + state * onesSize, last, dSum0 ? dSum0 + state * sumSize : 0, dOnes0 + state * onesSize, begin,
        );
      }
      featuresBwd(p, p.q, p.T, p.qf, p.gq, p.gqf, temp, dq + at * (<usize>E << 2));
      featuresBwd(p, p.k, p.S, p.kf, p.gk, p.gkf, 1, dk + keyAt * (<usize>E << 2));
      writeValues(p, dv + keyAt * (<usize>V << 2));
    }
}

/** gyn = dO / sum, mean = gyn . o, scales of the queries less c; gradients start at 0. A query that saw no key has none. */
function startRowsBwd(p: Plan, o: usize, dO: usize, stats: usize): void {
  const row = <usize>p.Vp << 2;
  for (let t: usize = 0; t < <usize>p.T; t++) {
    const inverse = load<f32>(stats, 4), c = load<f32>(stats), gyn = p.gyn + t * row, at = t << 2;
    packRows(dO, p.valueRow, 1, p.V, gyn, 1, inverse);
    packRows(o, p.valueRow, 1, p.V, p.strip, 1, 1);
    store<f32>(p.mean + at, dot4(gyn, p.strip, p.Vp));
    store<f32>(p.c + at, c);
    store<f32>(p.aqc + at, p.r && inverse != 0 ? load<f32>(p.aq + at) - c : LOWEST);
    o += p.valueRow;
    dO += p.valueRow;
    stats += <usize>p.H << 3;
  }
  memory.fill(p.gq, 0, <usize>p.T * (<usize>p.Ep << 2));
  memory.fill(p.gqf, 0, <usize>p.T * (<usize>p.mp << 2));
  memory.fill(p.gk, 0, <usize>p.S * (<usize>p.Ep << 2));
  memory.fill(p.gkf, 0, <usize>p.S * (<usize>p.mp << 2));
  memory.fill(p.gv, 0, <usize>p.S * row);
}

// ---- Tiles ------------------------------------------------------------------------------------------------------------------------------

/** The rows of the tile whose numbers are in queryIndex, in rows and panels. */
function readQueriesBwd(p: Plan): void {
  gatherRows(p.q, p.keyRow, p.queryIndex, p.E, p.tq, p.temp);
  gatherPacked(p.gyn, <usize>p.Vp << 2, p.queryIndex, p.tg);
  gatherFloats(p.mean, p.queryIndex, p.tMean, 0);
  gatherFloats(p.c, p.queryIndex, p.tc, 0);
  gatherFloats(p.aqc, p.queryIndex, p.tScale, LOWEST);
  asPanels(p.tq, p.Ep, p.qPanels);
  asPanels(p.tg, p.Vp, p.gPanels);
  gatherPacked(p.gq, <usize>p.Ep << 2, p.queryIndex, p.tgq);
  if (!p.r) return;
  gatherPacked(p.qf, <usize>p.mp << 2, p.queryIndex, p.tqf);
  asPanels(p.tqf, p.mp, p.qfPanels);
  gatherPacked(p.gqf, <usize>p.mp << 2, p.queryIndex, p.tgqf);
}

function putQueriesBwd(p: Plan): void {
  scatterPacked(p.tgq, <usize>p.Ep << 2, p.queryIndex, p.gq);
  if (p.r) scatterPacked(p.tgqf, <usize>p.mp << 2, p.queryIndex, p.gqf);
}

/** The keys of the tile in every form that the pairs need; nothing has come to them yet. */
function readKeysBwd(p: Plan, exact: bool, through: bool): void {
  readKeys(p);
  asColumns(p.tv, p.Vp, p.vColumns);
  if (exact) {
    asColumns(p.tk, p.Ep, p.kColumns);
    asPanels(p.tk, p.Ep, p.kPanels);
    memory.fill(p.dScores, 0, 16384);
    memory.fill(p.gkPanels, 0, <usize>p.Ep << 8);
  }
  if (through) {
    asColumns(p.tkf, p.mp, p.fColumns);
    asPanels(p.tkf, p.mp, p.fPanels);
    memory.fill(p.dProducts, 0, 16384);
    memory.fill(p.gkfPanels, 0, <usize>p.mp << 8);
  }
  memory.fill(p.weights, 0, 16384);
  memory.fill(p.gvPanels, 0, <usize>p.Vp << 8);
  for (let at = p.groups; at < p.groups + 64; at += 8) {
    store<i32>(at, TILE);
    store<i32>(at, 0, 4);
  }
}

/** As stripFwd: weights, gradients on scores and on products of features of a strip, and what goes from them to its queries. */
function stripBwd(p: Plan, r: i32, col: i32, end: i32, first: i32, last: i32, from: i32, to: i32, sign: f32, productMask: usize): void {
  const at = <usize>r, exact = first < last, through = from < to;
  pairProducts(p.tg + at * (<usize>p.Vp << 2), p.Vp, p.vColumns, col, end, p.upstream, PAIR_ROW);
  if (exact) pairProducts(p.tq + at * (<usize>p.Ep << 2), p.Ep, p.kColumns, first, last, p.scores, PAIR_ROW);
  if (through) pairProducts(p.tqf + at * (<usize>p.mp << 2), p.mp, p.fColumns, from, to, p.products, PAIR_ROW);
  for (let i: usize = 0; i < 4; i++)
    if (load<i32>(p.queryIndex + ((at + i) << 2)) >= 0) rowBwd(p, at + i, i * PAIR_ROW, col, end, exact, through, sign, productMask);
  if (exact) addOutputs(p.dScores + at * PAIR_ROW, p.kPanels, first, last, p.tgq + at * (<usize>p.Ep << 2), p.Ep);
  if (through) addOutputs(p.dProducts + at * PAIR_ROW, p.fPanels, from, to, p.tgqf + at * (<usize>p.mp << 2), p.mp);
  for (let c = col >> 3; c < end >> 3; c++) {
    const group = p.groups + (<usize>c << 3);
    store<i32>(group, min(load<i32>(group), r));
    store<i32>(group, r + 4, 4);
  }
}

function rowBwd(p: Plan, row: usize, strip: usize, col: i32, end: i32, exact: bool, through: bool, sign: f32, productMask: usize): void {
  const stat = row << 2, out = row * PAIR_ROW - strip, lowest = f32x4.splat(-Infinity);
  const c = f32x4.splat(load<f32>(p.tc + stat)), mean = f32x4.splat(load<f32>(p.tMean + stat));
  const scale = f32x4.splat(load<f32>(p.tScale + stat)), signs = f32x4.splat(sign), upstream = p.upstream;
  for (let at = strip + (<usize>col << 2), stop = strip + (<usize>end << 2); at < stop; at += 16) {
    const b = f32x4.sub(v128.load(upstream + at), mean);
    let w = f32x4.splat(0);
    if (exact) {
      const x = v128.bitselect(v128.load(p.scores + at), lowest, v128.load(p.scoreMask + at));
      w = expBelow89(f32x4.sub(x, c));
      v128.store(p.dScores + out + at, f32x4.mul(w, b));
    }
    if (through) {
      const mask = v128.load(productMask + at);
      let e = f32x4.mul(signs, exp4(f32x4.pmin(f32x4.add(v128.load(p.ta + at - strip), scale), f32x4.splat(0))));
      e = v128.and(e, mask);
      v128.store(p.dProducts + out + at, f32x4.mul(e, b));
      w = f32x4.add(w, v128.and(f32x4.mul(e, v128.load(p.products + at)), mask));
    }
    v128.store(p.weights + out + at, w);
  }
}

/** From the pairs of a tile to its keys, 8 at a time. */
function keysBwd(p: Plan, exact: bool, through: bool): void {
  for (let c: usize = 0; c < 8; c++) {
    const group = p.groups + (c << 3), first = load<i32>(group), rows = load<i32>(group, 4) - first;
    if (rows <= 0) continue;
    const pair = <usize>first * PAIR_ROW + (c << 5), row = <usize>first << 5, key = c << 8;
    columnUpdate(p.weights + pair, p.gPanels + row, rows, p.gvPanels + key, p.Vp);
    if (exact) columnUpdate(p.dScores + pair, p.qPanels + row, rows, p.gkPanels + key, p.Ep);
    if (through) columnUpdate(p.dProducts + pair, p.qfPanels + row, rows, p.gkfPanels + key, p.mp);
  }
  addPanels(p.gvPanels, p.Vp, p.keyIndex, p.gv);
  if (exact) addPanels(p.gkPanels, p.Ep, p.keyIndex, p.gk);
  if (through) addPanels(p.gkfPanels, p.mp, p.keyIndex, p.gkf);
}

/** 8 rows of sums in panels += pairs^T times `rows` rows in panels. */
function columnUpdate(pairs: usize, panels: usize, rows: i32, sums: usize, padded: i32): void {
  for (let c = 0; c < padded; c += 8, panels += TILE_PANEL, sums += TILE_PANEL)
    panelUpdate(pairs, PAIR_ROW, panels, rows, sums, sums, 8, 0, 0, 0, 0);
}

// ---- Passes, as in forward.as.ts ---------------------------------------------------------------------------------------------------------------

function timeBwd(p: Plan): void {
  if (!p.r && !p.window) return;
  let done = 0, turned = false;
  for (let t = 0; t < p.T; t += TILE) {
    const n = min(TILE, p.T - t), y = p.past + t, far = p.r ? farEnd(y, p.window) : max(0, y - p.window + 1) & ~(TILE - 1);
    if (p.r)
      for (; done < far; done += TILE) {
        sumKeys(p, done, done + TILE);
        turned = false;
      }
    inOrder(p.queryIndex, t, n);
    readQueriesBwd(p);
    if (p.r) {
      if (!turned) transposePanels(p.sum, p.mp, p.Vp, p.sumT);
      turned = true;
      for (let r = 0; r < n; r += 4) farQueries(p, r);
    }
    for (let j = far; j < y + n; j += TILE) {
      inOrder(p.keyIndex, p.slots + j, min(TILE, p.past + p.T - j));
      const through = p.r > 0 && throughEnd(y + n, j, p.window) > 0, exact = p.window > 0;
      readKeysBwd(p, exact, through);
      for (let r = 0; r < n; r += 4) {
        const first = exactFirst(y + r, j, p.window), last = exactEnd(y + r, j, p.window), seen = through ? throughEnd(y + r, j, p.window) : 0;
        const end = max(first < last ? last : 0, seen), col = seen > 0 ? 0 : first;
        if (col >= end) continue;
        timeMasks(p, p.queryIndex + (<usize>r << 2), j, col, end);
        stripBwd(p, r, col, end, first, last, 0, seen, 1, p.productMask);
      }
      keysBwd(p, exact, through);
    }
    putQueriesBwd(p);
  }
}

function allBwd(p: Plan): void {
  if (!p.r) return;
  for (let j = 0; j < p.S; j += TILE) sumKeys(p, j, min(p.S, j + TILE));
  transposePanels(p.sum, p.mp, p.Vp, p.sumT);
  for (let t = 0; t < p.T; t += TILE) {
    const n = min(TILE, p.T - t);
    inOrder(p.queryIndex, t, n);
    readQueriesBwd(p);
    for (let r = 0; r < n; r += 4) farQueries(p, r);
    putQueriesBwd(p);
  }
}

function roundBwd(p: Plan, round: i32): void {
  for (let first = 0, count = roundPart(p, round, 1); first < count; first += TILE) {
    const n = readRoundQueries(p, round, first), from = placesFirst(p, round, 0, TILE), to = placesEnd(p, round, 0, TILE);
    if (from >= to) continue;
    readQueriesBwd(p);
    for (let place = from; place < to; place += TILE) {
      let read = false;
      for (let r = 0; r < n; r += 4) {
        const col = max(0, placesFirst(p, round, r, 4) - place) & ~7, end = min(TILE, pad8(placesEnd(p, round, r, 4) - place));
        if (col >= end) continue;
        if (!read) {
          readRoundKeys(p, round, place);
          readKeysBwd(p, true, p.r > 0);
          read = true;
        }
        roundMasks(p, round, r, place, col, end);
        stripBwd(p, r, col, end, col, end, col, p.r ? end : 0, -1, p.scoreMask);
      }
      if (read) keysBwd(p, true, p.r > 0);
    }
    putQueriesBwd(p);
  }
}

// ---- Far pairs -----------------------------------------------------------------------------------------------------------------------------------

/** To the features of a strip of queries from the sum over keys that are far behind. */
function farQueries(p: Plan, r: i32): void {
  if (p.sumScale == LOWEST) return;
  const fRow = <usize>p.mp << 2, row = <usize>p.Vp << 2, at = <usize>r;
  for (let c: usize = 0; c < <usize>p.mp; c += 8)
    tileProduct(p.tg + at * row, row, p.sumT + c * row, p.Vp, 0, 0, 0, 0, p.strip + (c << 2), fRow, false);
  for (let i: usize = 0; i < 4; i++)
    addScaled(p, p.tgqf + (at + i) * fRow, p.strip + i * fRow, exp1(p.sumScale + load<f32>(p.tScale + ((at + i) << 2))), -load<f32>(p.tMean + ((at + i) << 2)));
}

/** out += factor (x + ones sumOnes) for a row of features. */
// @ts-ignore: decorator
@inline
function addScaled(p: Plan, out: usize, x: usize, factor: f32, ones: f32): void {
  const f = f32x4.splat(factor), m = f32x4.splat(ones);
  for (let c: usize = 0; c < <usize>p.mp << 2; c += 16) {
    const y = f32x4.add(v128.load(x + c), f32x4.mul(m, v128.load(p.sumOnes + c)));
    v128.store(out + c, f32x4.add(v128.load(out + c), f32x4.mul(f, y)));
  }
}

/** Adds the queries of a tile to the sum: features times gyn, and times -mean. */
function sumQueries(p: Plan, t: i32): void {
  inOrder(p.queryIndex, t, min(TILE, p.T - t));
  gatherPacked(p.gyn, <usize>p.Vp << 2, p.queryIndex, p.tg);
  gatherPacked(p.qf, <usize>p.mp << 2, p.queryIndex, p.tqf);
  gatherFloats(p.mean, p.queryIndex, p.tMean, 0);
  gatherFloats(p.aqc, p.queryIndex, p.tScale, LOWEST);
  toWeights(p, p.tScale, p.tg);
  for (let at: usize = 0; at < 256; at += 4) store<f32>(p.tMean + at, -load<f32>(p.tMean + at) * load<f32>(p.tScale + at));
  asPanels(p.tg, p.Vp, p.gPanels);
  addToSum(p, p.tqf, p.gPanels, p.tMean);
}

/** To keys `from` to `to` of the order of time from a sum over what is far ahead. */
function farKeys(p: Plan, from: i32, to: i32): void {
  if (p.sumScale == LOWEST) return;
  const fRow = <usize>p.mp << 2, row = <usize>p.Vp << 2;
  inOrder(p.keyIndex, p.slots + from, to - from);
  readKeys(p);
  transposePanels(p.sum, p.mp, p.Vp, p.sumT);
  for (let i = 0; i < to - from; i += 4) {
    const at = <usize>i;
    for (let c: usize = 0; c < <usize>p.mp; c += 8)
      tileProduct(p.tv + at * row, row, p.sumT + c * row, p.Vp, 0, 0, 0, 0, p.strip + (c << 2), fRow, false);
    for (let j: usize = at; j < <usize>min(i + 4, to - from); j++) {
      const key = <usize>(p.slots + from) + j, factor = exp1(p.sumScale + load<f32>(p.ta + (j << 2)));
      addScaled(p, p.gkf + key * fRow, p.strip + (j - at) * fRow, factor, 1);
    }
    for (let c: usize = 0; c < <usize>p.Vp; c += 8)
      tileProduct(p.tkf + at * fRow, fRow, p.sum + c * fRow, p.mp, 0, 0, 0, 0, p.strip + (c << 2), row, false);
    for (let j: usize = at; j < <usize>min(i + 4, to - from); j++) {
      const key = <usize>(p.slots + from) + j, f = f32x4.splat(exp1(p.sumScale + load<f32>(p.ta + (j << 2))));
      for (let c: usize = 0; c < row; c += 16) {
        const out = p.gv + key * row + c;
        v128.store(out, f32x4.add(v128.load(out), f32x4.mul(f, v128.load(p.strip + (j - at) * row + c))));
      }
    }
  }
}

/** To the keys: from the state after the last token, and from the queries that are far ahead; to the state before from both. */
function endBwd(p: Plan, dSum1: usize, dOnes1: usize, scale1: f32, dSum0: usize, dOnes0: usize, scale0: f32): void {
  const sumFloats = 2 * p.r * p.V, fromState = dSum1 != 0 && (anyOf(dSum1, sumFloats) || anyOf(dOnes1, 2 * p.r));
  if (fromState) {
    loadSum(p, dSum1, dOnes1, -scale1);
    for (let j = 0, end = behindEnd(p); j < end; j += TILE) farKeys(p, j, min(end, j + TILE));
  }
  emptySum(p);
  let t = (p.T - 1) & ~(TILE - 1);
  if (p.causal)
    for (let j = farEnd(p.past + t, p.window) - TILE; j >= 0; j -= TILE) {
      for (; t >= 0 && farEnd(p.past + t, p.window) >= j + TILE; t -= TILE) sumQueries(p, t);
      farKeys(p, j, j + TILE);
    }
  else {
    for (; t >= 0; t -= TILE) sumQueries(p, t);
    for (let j = 0; j < p.S; j += TILE) farKeys(p, j, min(p.S, j + TILE));
  }
  if (!dSum0) return;
  for (; t >= 0; t -= TILE) sumQueries(p, t);
  const factor: f32 = p.sumScale == LOWEST ? <f32>0 : exp1(scale0 + p.sumScale), kept: f32 = fromState ? exp1(scale0 - scale1) : <f32>0;
  copyScaled(dSum1, kept, dSum0, sumFloats);
  copyScaled(dOnes1, kept, dOnes0, 2 * p.r);
  const half = <usize>p.r << 2, padded = <usize>p.rp << 2;
  unpackHalf(p, 0, dSum0, factor, true);
  unpackHalf(p, padded << 3, dSum0 + <usize>p.r * (<usize>p.V << 2), factor, true);
  for (let at: usize = 0; at < half; at += 4) {
    store<f32>(dOnes0 + at, load<f32>(dOnes0 + at) + factor * load<f32>(p.sumOnes + at));
    store<f32>(dOnes0 + half + at, load<f32>(dOnes0 + half + at) + factor * load<f32>(p.sumOnes + padded + at));
  }
}

/** to = factor * from; factor 0: zeros. */
function copyScaled(from: usize, factor: f32, to: usize, n: i32): void {
  for (let i: usize = 0; i < <usize>n; i++) store<f32>(to + (i << 2), factor == 0 ? 0 : factor * load<f32>(from + (i << 2)));
}

function writeValues(p: Plan, dv: usize): void {
  for (let j: usize = 0; j < <usize>p.S; j++, dv += p.valueRow)
    for (let e = 0; e < p.V; e += 4) storeN(dv + (<usize>e << 2), v128.load(p.gv + j * (<usize>p.Vp << 2) + (<usize>e << 2)), min(4, p.V - e));
}
