/** The forward pass: a tile of queries against all tiles of keys that it sees. */
import { pad8 } from '../wasm/lib/rows.as';
import { blockFwdScratch, headFwdBlocks, packBlockFactors, packBlockKeys } from './blockForward.as';
import { finishRows, POWERS, softmaxStrip, startStates, stateBytes } from './softmax.as';
import { step } from './step.as';
import { addTerms, hideKeys, place, SCORES_ROW, Terms } from './terms.as';
import {
  endColumn, endKey, firstColumn, firstKey, hide, KEYS, packKeyFactors, packKeyPanels, packQueries, packTile, QUERIES, stripOutputs,
  stripScores,
} from './tiles.as';

/** Bytes of scratch of flashAttentionFwd; S is the largest number of keys of a sequence, R = H / G. */
export function flashAttentionFwdScratch(S: i32, R: i32, K: i32, V: i32, rank: i32, blocks: bool): usize {
  const Wp = pad8(K) + pad8(rank), Vp = pad8(V), tiles = <usize>((S + KEYS - 1) / KEYS);
  const whole = blocks ? blockFwdScratch(S, K, V, rank) : keyTilesAt(0, Wp, Vp) + tiles * keyTile(Wp, Vp);
  return max(whole, SCORES_ROW + (<usize>(R * (Vp + 4)) << 2));
}

// Scratch of a tile of queries: 16 strips [Wp, 4], outputs [64, Vp], states of 16 strips, scores of a strip and their powers; then the tiles of
// keys: key panels, values in panels.
// @ts-ignore: decorator
@inline
function outputsAt(s: usize, Wp: i32): usize { return s + (<usize>Wp << 8); }
// @ts-ignore: decorator
@inline
function statesAt(s: usize, Wp: i32, Vp: i32): usize { return outputsAt(s, Wp) + (<usize>Vp << 8); }
// @ts-ignore: decorator
@inline
function stripAt(s: usize, Wp: i32, Vp: i32): usize { return statesAt(s, Wp, Vp) + stateBytes(QUERIES); }
// @ts-ignore: decorator
@inline
function keyTilesAt(s: usize, Wp: i32, Vp: i32): usize { return stripAt(s, Wp, Vp) + 2 * POWERS; }
/** Bytes of a tile of keys. */
// @ts-ignore: decorator
@inline
function keyTile(Wp: i32, Vp: i32): usize { return <usize>(Wp + Vp) << 8; }

/**
 * q [*, H, K], k [*, G, K], v [*, G, V], o [*, H, V], lse and rest [*, H], where * counts tokens: sequence n is the queries offsets[n]
 * to offsets[n + 1] and the keys keyOffsets[n] to keyOffsets[n + 1]. `rest` is what rounding took from lse. `terms` is a table as the class
 * `Terms` has it. `blocks`: products by native code (blocks.as.ts).
 */
export function flashAttentionFwd(
  q: usize, k: usize, v: usize, o: usize, lse: usize, rest: usize, offsets: usize, keyOffsets: usize,
  N: i32, H: i32, G: i32, K: i32, V: i32, causal: bool, window: i32, scale: f32, blocks: bool, terms: usize, s: usize,
): void {
  const x = changetype<Terms>(terms), R = H / G, keyRow = <usize>(G * K) << 2, valueRow = <usize>(G * V) << 2;
  for (let n = 0; n < N; n++, offsets += 4, keyOffsets += 4) {
    const query = load<i32>(offsets), key = load<i32>(keyOffsets), T = load<i32>(offsets, 4) - query, S = load<i32>(keyOffsets, 4) - key;
    for (let g = 0; g < G; g++) {
      const keys = <usize>key * <usize>G + <usize>g, kg = k + keys * (<usize>K << 2), vg = v + keys * (<usize>V << 2);
      for (let h = g * R; h < (g + 1) * R; h++) {
        const at = <usize>query * <usize>H + <usize>h;
        const qh = q + at * (<usize>K << 2), oh = o + at * (<usize>V << 2), lh = lse + (at << 2), eh = rest + (at << 2);
        if (T == 1) {
          step(x, n, h, R, query, key, qh, kg, vg, oh, lh, eh, S, firstKey(0, S - 1, window), keyRow, valueRow, K, V, scale, s);
          break; // it has done all heads of the group
        }
        place(x, n, h, query, key, S - T);
        if (blocks) {
          if (h == g * R) packBlockKeys(kg, vg, S, keyRow, valueRow, K, V, x.rank, s);
          if (h == g * R || x.phiKHead) packBlockFactors(x, S, K, s);
          headFwdBlocks(x, qh, oh, lh, eh, T, S, H, K, V, causal, window, scale, s);
          continue;
        }
        if (h == g * R) packKeyTiles(kg, vg, S, keyRow, valueRow, K, V, x.rank, s);
        if (h == g * R || x.phiKHead) packFactorTiles(x, S, K, V, s);
        headFwd(x, qh, oh, lh, eh, T, S, H, K, V, causal, window, scale, s);
      }
    }
  }
}

function packKeyTiles(k: usize, v: usize, S: i32, keyRow: usize, valueRow: usize, K: i32, V: i32, rank: i32, s: usize): void {
  const Wp = pad8(K) + pad8(rank), Vp = pad8(V);
  let tile = keyTilesAt(s, Wp, Vp);
  for (let j = 0; j < S; j += KEYS, k += keyRow << 6, v += valueRow << 6, tile += keyTile(Wp, Vp)) {
    packKeyPanels(k, keyRow, min(KEYS, S - j), K, tile + (<usize>rank << 5), <usize>Wp << 5);
    packTile(v, valueRow, min(KEYS, S - j), V, tile + (<usize>Wp << 8));
  }
}

function packFactorTiles(x: Terms, S: i32, K: i32, V: i32, s: usize): void {
  if (!x.rank) return;
  const Wp = pad8(K) + pad8(x.rank), Vp = pad8(V);
  let tile = keyTilesAt(s, Wp, Vp), phi = x.phiKAt;
  for (let j = 0; j < S; j += KEYS, phi += x.phiKRow << 6, tile += keyTile(Wp, Vp))
    packKeyFactors(phi, x.phiKRow, min(KEYS, S - j), x.rank, tile, <usize>Wp << 5);
}

/** All queries of one head. */
function headFwd(
  x: Terms, q: usize, o: usize, lse: usize, rest: usize, T: i32, S: i32, H: i32, K: i32, V: i32,
  causal: bool, window: i32, scale: f32, s: usize,
): void {
  const Wp = pad8(K) + pad8(x.rank), Vp = pad8(V), outputs = outputsAt(s, Wp), states = statesAt(s, Wp, Vp);
  const queryRow = <usize>(H * K) << 2, outputRow = <usize>(H * V) << 2, lseRow = <usize>H << 2;
  for (let t = 0; t < T; t += QUERIES) {
    const n = min(QUERIES, T - t);
    packQueries(x, t, q, queryRow, n, K, scale, s, Wp);
    memory.fill(outputs, 0, <usize>Vp << 8);
    startStates(states, stateBytes(QUERIES));
    tileFwd(x, t, n, T, S, x.rank + K, Wp, Vp, causal, window, s);
    finishRows(states, outputs, Vp, n, H, V, o, lse, rest);
    q += queryRow << 6;
    o += outputRow << 6;
    lse += lseRow << 6;
    rest += lseRow << 6;
  }
}

/** A tile of n queries from query t against all tiles of keys that it sees. */
function tileFwd(
  x: Terms, t: i32, n: i32, T: i32, S: i32, width: i32, Wp: i32, Vp: i32, causal: bool, window: i32, s: usize,
): void {
  const shift = S - T, strip = stripAt(s, Wp, Vp), outputs = outputsAt(s, Wp), states = statesAt(s, Wp, Vp);
  const first = firstKey(t, shift, window) & ~(KEYS - 1), last = endKey(t + n - 1, S, shift, causal);
  for (let j = first; j < last; j += KEYS) {
    const keys = keyTilesAt(s, Wp, Vp) + <usize>(j / KEYS) * keyTile(Wp, Vp), values = keys + (<usize>Wp << 8);
    for (let r = 0; r < n; r += 4) {
      const i = <usize>(r >> 2), col = firstColumn(t + r, j, shift, window), end = endColumn(t + r, j, S, shift, causal);
      if (col >= end) continue;
      const out = outputs + i * (<usize>Vp << 4);
      stripScores(s + i * (<usize>Wp << 4), width, Wp, keys, col, end, strip);
      addTerms(x, strip, t + r, j, min(4, n - r), col, min(end, S - j), shift);
      hide(strip, t + r, j, col, end, S, shift, causal, window);
      hideKeys(x, strip, j, 4, col, min(end, S - j));
      softmaxStrip(strip, POWERS, col, end, states + (i << 5), out, <usize>Vp << 2);
      stripOutputs(strip, values, col, end, out, Vp);
    }
  }
}
