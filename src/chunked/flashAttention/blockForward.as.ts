/** The forward pass of one head with native products: a block of queries against all tiles of keys that it sees. */
import { pad8 } from '../wasm/lib/rows.as';
import { BLOCK, clearOutside, endStrip, firstStrip, product } from './blocks.as';
import { finishRows, POWERS, softmaxStrip, startStates, stateBytes } from './softmax.as';
import { addTerms, hideKeys, SCORES_ROW, Terms } from './terms.as';
import { copyRows, endColumn, endKey, firstColumn, firstKey, hide, KEYS } from './tiles.as';

// Scratch: keys [S, W], values [S, V] | of a block: queries [256, W], outputs [256, Vp], states of 64 strips, scores [256, 64], powers of a strip.

// @ts-ignore: decorator
@inline
function valuesAt(s: usize, S: i32, W: i32): usize { return s + <usize>S * (<usize>W << 2); }
// @ts-ignore: decorator
@inline
function queriesAt(s: usize, S: i32, W: i32, V: i32): usize { return valuesAt(s, S, W) + <usize>S * (<usize>V << 2); }
// @ts-ignore: decorator
@inline
function outputsAt(s: usize, S: i32, W: i32, V: i32): usize { return queriesAt(s, S, W, V) + <usize>(BLOCK * W) * 4; }
// @ts-ignore: decorator
@inline
function statesAt(s: usize, S: i32, W: i32, V: i32): usize { return outputsAt(s, S, W, V) + <usize>(BLOCK * pad8(V)) * 4; }
// @ts-ignore: decorator
@inline
function scoresAt(s: usize, S: i32, W: i32, V: i32): usize { return statesAt(s, S, W, V) + stateBytes(BLOCK); }

/** Bytes of scratch of a head with S keys. */
export function blockFwdScratch(S: i32, K: i32, V: i32, rank: i32): usize {
  return scoresAt(0, S, rank + K, V) + <usize>BLOCK * SCORES_ROW + POWERS;
}

/** Keys and values of a key head. */
export function packBlockKeys(k: usize, v: usize, S: i32, keyRow: usize, valueRow: usize, K: i32, V: i32, rank: i32, s: usize): void {
  const W = rank + K;
  copyRows(k, keyRow, S, K, 1, s + (<usize>rank << 2), <usize>W << 2);
  copyRows(v, valueRow, S, V, 1, valuesAt(s, S, W), <usize>V << 2);
}

/** The factors of its keys. */
export function packBlockFactors(x: Terms, S: i32, K: i32, s: usize): void {
  if (x.rank) copyRows(x.phiKAt, x.phiKRow, S, x.rank, 1, s, <usize>(x.rank + K) << 2);
}

/** All queries of one head. */
export function headFwdBlocks(
  x: Terms, q: usize, o: usize, lse: usize, rest: usize, T: i32, S: i32, H: i32, K: i32, V: i32,
  causal: bool, window: i32, scale: f32, s: usize,
): void {
  const W = x.rank + K, Vp = pad8(V), queries = queriesAt(s, S, W, V), outputs = outputsAt(s, S, W, V), states = statesAt(s, S, W, V);
  const queryRow = <usize>(H * K) << 2, outputRow = <usize>(H * V) << 2, lseRow = <usize>H << 2;
  for (let t = 0; t < T; t += BLOCK) {
    const n = min(BLOCK, T - t), at = <usize>t;
    if (x.rank) copyRows(x.phiQAt + at * x.phiQRow, x.phiQRow, n, x.rank, 1, queries, <usize>W << 2);
    copyRows(q + at * queryRow, queryRow, n, K, scale, queries + (<usize>x.rank << 2), <usize>W << 2);
    memory.fill(outputs, 0, <usize>(BLOCK * Vp) << 2);
    startStates(states, stateBytes(BLOCK));
    blockFwd(x, t, n, T, S, W, V, causal, window, s);
    finishRows(states, outputs, Vp, n, H, V, o + at * outputRow, lse + at * lseRow, rest + at * lseRow);
  }
}

/** A block of n queries from query t against all tiles of keys that it sees. */
function blockFwd(x: Terms, t: i32, n: i32, T: i32, S: i32, W: i32, V: i32, causal: bool, window: i32, s: usize): void {
  const shift = S - T, Vp = pad8(V), queries = queriesAt(s, S, W, V), outputs = outputsAt(s, S, W, V), states = statesAt(s, S, W, V);
  const scores = scoresAt(s, S, W, V), powers = scores + <usize>BLOCK * SCORES_ROW;
  const first = firstKey(t, shift, window) & ~(KEYS - 1), last = endKey(t + n - 1, S, shift, causal);
  for (let j = first; j < last; j += KEYS) {
    const count = min(KEYS, S - j), start = firstStrip(t, n, j, S, shift, causal), stop = endStrip(t, n, j, shift, window);
    if (start >= stop) continue;
    const rows = min(stop, n) - start, at = <usize>start, strips = scores + at * SCORES_ROW, key = <usize>j;
    product(queries + at * (<usize>W << 2), W, s + key * (<usize>W << 2), W, strips, KEYS, rows, count, W, false, true, false);
    for (let r = start; r < stop; r += 4) {
      const i = <usize>r, col = firstColumn(t + r, j, shift, window), end = endColumn(t + r, j, S, shift, causal);
      const strip = scores + i * SCORES_ROW;
      if (col < end) {
        addTerms(x, strip, t + r, j, min(4, n - r), col, min(end, S - j), shift);
        hide(strip, t + r, j, col, end, S, shift, causal, window);
        hideKeys(x, strip, j, 4, col, min(end, S - j));
        softmaxStrip(strip, powers - strip, col, end, states + (i << 3), outputs + i * (<usize>Vp << 2), <usize>Vp << 2);
      }
      clearOutside(strip, col, end);
    }
    product(
      strips, KEYS, valuesAt(s, S, W) + key * (<usize>V << 2), V, outputs + at * (<usize>Vp << 2), Vp, rows, V, count, false, false, true,
    );
  }
}
