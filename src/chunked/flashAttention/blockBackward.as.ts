/** The backward pass of one head with native products: tiles of keys outside, blocks of queries inside. */
import { BLOCK, clearOutside, endStrip, firstStrip, product } from './blocks.as';
import { weightsBwd } from './softmax.as';
import { packStatistics, STATISTICS } from './statistics.as';
import { addPacked, addTermGradients, addTerms, hideKeys, SCORES_ROW, Terms } from './terms.as';
import { copyRows, endColumn, endKey, firstColumn, firstKey, hide, KEYS, QUERIES } from './tiles.as';

// Scratch: weights P and their gradients dS of a block [256, 64], powers of a row | a tile of keys [64, W] and values [64, V] | of one head: queries
// [T, W], dO [T, V], gradients of factors and q [T, W], statistics in tiles of 64 queries | of the key head: gradients of factors and
// k [S, W], dv [S, V].

// @ts-ignore: decorator
@inline
const SQUARE: usize = <usize>BLOCK * SCORES_ROW;
// @ts-ignore: decorator
@inline
function gradientsAt(s: usize): usize { return s + SQUARE; }
// @ts-ignore: decorator
@inline
function powersAt(s: usize): usize { return s + 2 * SQUARE; }
// @ts-ignore: decorator
@inline
function keysAt(s: usize): usize { return powersAt(s) + SCORES_ROW; }
// @ts-ignore: decorator
@inline
function valuesAt(s: usize, W: i32): usize { return keysAt(s) + <usize>(KEYS * W) * 4; }
// @ts-ignore: decorator
@inline
function queriesAt(s: usize, W: i32, V: i32): usize { return valuesAt(s, W) + <usize>(KEYS * V) * 4; }
// @ts-ignore: decorator
@inline
function upstreamAt(s: usize, T: i32, W: i32, V: i32): usize { return queriesAt(s, W, V) + <usize>T * (<usize>W << 2); }
// @ts-ignore: decorator
@inline
function queryGradientsAt(s: usize, T: i32, W: i32, V: i32): usize { return upstreamAt(s, T, W, V) + <usize>T * (<usize>V << 2); }
// @ts-ignore: decorator
@inline
function statisticsAt(s: usize, T: i32, W: i32, V: i32): usize { return queryGradientsAt(s, T, W, V) + <usize>T * (<usize>W << 2); }

/** Where the sums of the key head lie. */
export function blockSumsAt(s: usize, T: i32, K: i32, V: i32, rank: i32): usize {
  return statisticsAt(s, T, rank + K, V) + <usize>((T + QUERIES - 1) / QUERIES) * STATISTICS;
}

/** Bytes of scratch, 16 of them for addPacked, which reads the last row past its end. */
export function blockBwdScratch(T: i32, S: i32, K: i32, V: i32, rank: i32): usize {
  return blockSumsAt(0, T, K, V, rank) + <usize>S * (<usize>(rank + K + V) << 2) + 16;
}

/** Writes dq and adds to the gradients of the terms; those of keys, of their factors and of values add up in the sums. */
export function headBwdBlocks(
  x: Terms, q: usize, k: usize, v: usize, o: usize, dO: usize, lse: usize, rest: usize, dLse: usize, dq: usize, T: i32, S: i32, H: i32,
  keyRow: usize, valueRow: usize, K: i32, V: i32, causal: bool, window: i32, scale: f32, s: usize,
): void {
  const rank = x.rank, W = rank + K, row = <usize>W << 2, shift = S - T, queryRow = <usize>(H * K) << 2;
  const gradients = queryGradientsAt(s, T, W, V);
  packQueries(x, q, o, dO, lse, rest, dLse, T, H, K, V, scale, s);
  memory.fill(gradients, 0, <usize>T * row);
  for (let j = 0; j < S; j += KEYS) {
    const count = min(KEYS, S - j), key = <usize>j;
    if (rank) copyRows(x.phiKAt + key * x.phiKRow, x.phiKRow, count, rank, 1, keysAt(s), row);
    copyRows(k + key * keyRow, keyRow, count, K, 1, keysAt(s) + (<usize>rank << 2), row);
    copyRows(v + key * valueRow, valueRow, count, V, 1, valuesAt(s, W), <usize>V << 2);
    for (let t = 0; t < T; t += BLOCK) {
      const n = min(BLOCK, T - t);
      if (endKey(t + n - 1, S, shift, causal) <= j || firstKey(t, shift, window) >= j + KEYS) continue;
      blockBwd(x, t, j, n, T, S, K, V, causal, window, s);
    }
  }
  copyRows(gradients + (<usize>rank << 2), row, T, K, scale, dq, queryRow);
  if (x.dPhiQAt) addPacked(gradients, row, x.dPhiQAt, x.phiQRow, T, rank);
}

function packQueries(
  x: Terms, q: usize, o: usize, dO: usize, lse: usize, rest: usize, dLse: usize, T: i32, H: i32, K: i32, V: i32, scale: f32, s: usize,
): void {
  const W = x.rank + K, queries = queriesAt(s, W, V), row = <usize>W << 2, outputRow = <usize>(H * V) << 2, one = <usize>H << 2;
  if (x.rank) copyRows(x.phiQAt, x.phiQRow, T, x.rank, 1, queries, row);
  copyRows(q, <usize>(H * K) << 2, T, K, scale, queries + (<usize>x.rank << 2), row);
  copyRows(dO, outputRow, T, V, 1, upstreamAt(s, T, W, V), <usize>V << 2);
  let to = statisticsAt(s, T, W, V);
  for (let t = 0; t < T; t += QUERIES, to += STATISTICS) {
    const at = <usize>t * one, outAt = <usize>t * outputRow;
    packStatistics(o + outAt, dO + outAt, lse + at, rest + at, dLse + at, min(QUERIES, T - t), V, outputRow, one, to);
  }
}

/** P and dS of a block of n queries from query t and the tile of keys from key j, and what they add to the gradients. */
function blockBwd(x: Terms, t: i32, j: i32, n: i32, T: i32, S: i32, K: i32, V: i32, causal: bool, window: i32, s: usize): void {
  const rank = x.rank, W = rank + K, row = <usize>W << 2, valueRow = <usize>V << 2, shift = S - T;
  const count = min(KEYS, S - j), start = firstStrip(t, n, j, S, shift, causal), stop = endStrip(t, n, j, shift, window);
  if (start >= stop) return;
  const rows = min(stop, n) - start, at = <usize>start * SCORES_ROW, P = s + at, dS = gradientsAt(s) + at, query = <usize>(t + start);
  const queries = queriesAt(s, W, V) + query * row, upstream = upstreamAt(s, T, W, V) + query * valueRow;
  product(queries, W, keysAt(s), W, P, KEYS, rows, count, W, false, true, false);
  product(upstream, V, valuesAt(s, W), V, dS, KEYS, rows, count, V, false, true, false);
  for (let r = start; r < stop; r += 4) stripBwd(x, t + r, r, j, n, S, shift, causal, window, statisticsAt(s, T, W, V), s);
  const sums = blockSumsAt(s, T, K, V, rank), key = <usize>j, gradients = queryGradientsAt(s, T, W, V) + query * row;
  product(P, KEYS, upstream, V, sums + <usize>S * row + key * valueRow, V, count, V, rows, true, false, true);
  const skipKeys = x.dPhiKAt ? 0 : rank, skipQueries = x.dPhiQAt ? 0 : rank; // factors without a gradient are in the first columns
  const i = <usize>skipKeys << 2, l = <usize>skipQueries << 2;
  product(dS, KEYS, queries + i, W, sums + key * row + i, W, count, W - skipKeys, rows, true, false, true);
  product(dS, KEYS, keysAt(s) + l, W, gradients + l, W, rows, W - skipQueries, count, false, false, true);
}

/** Scores and dP of the strip from row r of a block, which is query t, become P and dS. */
function stripBwd(
  x: Terms, t: i32, r: i32, j: i32, n: i32, S: i32, shift: i32, causal: bool, window: i32, statistics: usize, s: usize,
): void {
  const P = s + <usize>r * SCORES_ROW, dS = gradientsAt(s) + <usize>r * SCORES_ROW, real = min(4, n - r);
  const col = firstColumn(t, j, shift, window), end = endColumn(t, j, S, shift, causal), last = min(end, S - j);
  if (col < end) {
    addTerms(x, P, t, j, real, col, last, shift);
    hide(P, t, j, col, end, S, shift, causal, window);
    hideKeys(x, P, j, 4, col, last);
    weightsBwd(P, dS, col, end, statistics + <usize>(t / QUERIES) * STATISTICS + (<usize>(t & (QUERIES - 1)) << 2), powersAt(s));
    addTermGradients(x, dS, t, j, real, col, last, shift);
  }
  clearOutside(P, col, end);
  clearOutside(dS, col, end);
}

/** Adds what one head gave to the gradients of the keys' factors, and clears it for the next. */
export function addBlockFactors(x: Terms, sums: usize, S: i32, K: i32): void {
  if (!x.dPhiKAt) return;
  const row = <usize>(x.rank + K) << 2;
  addPacked(sums, row, x.dPhiKAt, x.phiKRow, S, x.rank);
  for (let j = 0; j < S; j++, sums += row) memory.fill(sums, 0, <usize>x.rank << 2);
}

export function writeBlockSums(
  sums: usize, dk: usize, dv: usize, keyRow: usize, valueRow: usize, S: i32, rank: i32, K: i32, V: i32,
): void {
  const row = <usize>(rank + K) << 2;
  copyRows(sums + (<usize>rank << 2), row, S, K, 1, dk, keyRow);
  copyRows(sums + <usize>S * row, <usize>V << 2, S, V, 1, dv, valueRow);
}
