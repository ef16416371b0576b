/** The backward pass, for one head at a time: tiles of keys outside, tiles of queries inside. */
import { panelUpdate } from '../wasm/lib/product.as';
import { pad8, unpackPanel } from '../wasm/lib/rows.as';
import { addBlockFactors, blockBwdScratch, blockSumsAt, headBwdBlocks, writeBlockSums } from './blockBackward.as';
import { POWERS, weightsBwd } from './softmax.as';
import { packStatistics, STATISTICS } from './statistics.as';
import { addPacked, addPanels, addTermGradients, addTerms, hideKeys, place, SCORES_ROW, Terms } from './terms.as';
import {
  copyRows, endColumn, endKey, firstColumn, firstKey, hide, KEYS, NARROW, narrowOutputs, packKeyFactors, packKeyPanels, packQueries, packStrips, packTile,
  QUERIES, stripOutputs, stripScores, TILE_PANEL,
} from './tiles.as';

// Scratch: weights P and their gradients dS of a tile [64, 64], powers of a strip | a tile of keys: key panels of factors and k, of v, panels
// of k and of factors | of one head, in tiles of 64 queries: see below | of the key head, in tiles: dk, dv in panels | of one head, in tiles
// of keys: gradients of factors in panels.

// @ts-ignore: decorator
@inline
const SQUARE: usize = 16384;
// @ts-ignore: decorator
@inline
function gradientsAt(s: usize): usize { return s + SQUARE; }
// @ts-ignore: decorator
@inline
function powersAt(s: usize): usize { return s + 2 * SQUARE; }
// @ts-ignore: decorator
@inline
function keyPanelsAt(s: usize): usize { return powersAt(s) + POWERS; }
// @ts-ignore: decorator
@inline
function valuePanelsAt(s: usize, Wp: i32): usize { return keyPanelsAt(s) + (<usize>Wp << 8); }
// @ts-ignore: decorator
@inline
function keysAt(s: usize, Wp: i32, Vp: i32): usize { return valuePanelsAt(s, Wp) + (<usize>Vp << 8); }
// @ts-ignore: decorator
@inline
function factorKeysAt(s: usize, Kp: i32, Vp: i32, Rp: i32): usize { return keysAt(s, Kp + Rp, Vp) + (<usize>Kp << 8); }
// @ts-ignore: decorator
@inline
function queryTilesAt(s: usize, Kp: i32, Vp: i32, Rp: i32): usize { return factorKeysAt(s, Kp, Vp, Rp) + (<usize>Rp << 8); }

// A tile of queries: strips of factors and q, strips of dO, panels of q and dO, dq in rows, statistics; factors in panels, their gradients in
// rows.
// Statistics of a query: lse, rest, and delta = dO . o - dLse.

/** Bytes of a tile of queries. */
// @ts-ignore: decorator
@inline
function queryTile(Kp: i32, Vp: i32, Rp: i32): usize { return (<usize>(3 * Kp + 2 * Vp + 3 * Rp) << 8) + STATISTICS; }
// @ts-ignore: decorator
@inline
function upstreamRowsAt(tile: usize, Wp: i32): usize { return tile + (<usize>Wp << 8); }
// @ts-ignore: decorator
@inline
function queryPanelsAt(tile: usize, Wp: i32, Vp: i32): usize { return upstreamRowsAt(tile, Wp) + (<usize>Vp << 8); }
// @ts-ignore: decorator
@inline
function upstreamPanelsAt(tile: usize, Kp: i32, Vp: i32, Rp: i32): usize { return queryPanelsAt(tile, Kp + Rp, Vp) + (<usize>Kp << 8); }
// @ts-ignore: decorator
@inline
function queryGradientsAt(tile: usize, Kp: i32, Vp: i32, Rp: i32): usize { return upstreamPanelsAt(tile, Kp, Vp, Rp) + (<usize>Vp << 8); }
// @ts-ignore: decorator
@inline
function statisticsAt(tile: usize, Kp: i32, Vp: i32, Rp: i32): usize { return queryGradientsAt(tile, Kp, Vp, Rp) + (<usize>Kp << 8); }
// @ts-ignore: decorator
@inline
function factorPanelsAt(tile: usize, Kp: i32, Vp: i32, Rp: i32): usize { return statisticsAt(tile, Kp, Vp, Rp) + STATISTICS; }
// @ts-ignore: decorator
@inline
function factorGradientsAt(tile: usize, Kp: i32, Vp: i32, Rp: i32): usize { return factorPanelsAt(tile, Kp, Vp, Rp) + (<usize>Rp << 8); }

// @ts-ignore: decorator
@inline
function tilesOf(tokens: i32): usize { return <usize>((tokens + 63) / 64); }
// @ts-ignore: decorator
@inline
function keyGradientsAt(s: usize, T: i32, Kp: i32, Vp: i32, Rp: i32): usize {
  return queryTilesAt(s, Kp, Vp, Rp) + tilesOf(T) * queryTile(Kp, Vp, Rp);
}

/** Bytes of scratch of flashAttentionBwd; T and S are the largest numbers of queries and keys of a sequence. */
export function flashAttentionBwdScratch(T: i32, S: i32, K: i32, V: i32, rank: i32, blocks: bool): usize {
  if (blocks) return blockBwdScratch(T, S, K, V, rank);
  const Kp = pad8(K), Vp = pad8(V), Rp = pad8(rank);
  return keyGradientsAt(0, T, Kp, Vp, Rp) + tilesOf(S) * (<usize>(Kp + Vp + Rp) << 8);
}

/**
 * Gradients of sum(o * dO) + sum(lse * dLse); tensors as in flashAttentionFwd. Those of the terms are added to, so that what is shared
 * gets the sum. `blocks`: products by native code (blocks.as.ts).
 */
export function flashAttentionBwd(
  q: usize, k: usize, v: usize, o: usize, lse: usize, rest: usize, dO: usize, dLse: usize, dq: usize, dk: usize, dv: usize,
  offsets: usize, keyOffsets: usize, N: i32, H: i32, G: i32, K: i32, V: i32, causal: bool, window: i32, scale: f32,
  blocks: bool, terms: usize, s: usize,
): void {
  const x = changetype<Terms>(terms), R = H / G, Kp = pad8(K), Vp = pad8(V), Rp = pad8(x.rank);
  const keyRow = <usize>(G * K) << 2, valueRow = <usize>(G * V) << 2;
  for (let n = 0; n < N; n++, offsets += 4, keyOffsets += 4) {
    const query = load<i32>(offsets), key = load<i32>(keyOffsets), T = load<i32>(offsets, 4) - query, S = load<i32>(keyOffsets, 4) - key;
    const sums = blocks ? blockSumsAt(s, T, K, V, x.rank) : keyGradientsAt(s, T, Kp, Vp, Rp), factorSums = sums + tilesOf(S) * (<usize>(Kp + Vp) << 8);
    for (let g = 0; g < G; g++) {
      const keys = <usize>key * <usize>G + <usize>g, keyAt = keys * (<usize>K << 2), valueAt = keys * (<usize>V << 2);
      memory.fill(sums, 0, blocks ? <usize>S * (<usize>(x.rank + K + V) << 2) : tilesOf(S) * (<usize>(Kp + Vp) << 8));
      for (let h = g * R; h < (g + 1) * R; h++) {
        const at = <usize>query * <usize>H + <usize>h, qAt = at * (<usize>K << 2), oAt = at * (<usize>V << 2), one = at << 2;
        place(x, n, h, query, key, S - T);
        if (blocks) {
          headBwdBlocks(
            x, q + qAt, k + keyAt, v + valueAt, o + oAt, dO + oAt, lse + one, rest + one, dLse + one, dq + qAt, T, S, H, keyRow, valueRow, K, V,
            causal, window, scale, s,
          );
          addBlockFactors(x, sums, S, K);
          continue;
        }
        packQueryTiles(x, q + qAt, o + oAt, dO + oAt, lse + one, rest + one, dLse + one, T, H, K, V, scale, queryTilesAt(s, Kp, Vp, Rp));
        memory.fill(factorSums, 0, tilesOf(S) * (<usize>Rp << 8));
        headBwd(x, k + keyAt, v + valueAt, keyRow, valueRow, T, S, K, V, causal, window, sums, factorSums, s);
        writeQueryGradients(x, dq + qAt, T, H, K, V, scale, s);
        addKeyFactorGradients(x, S, factorSums);
      }
      if (blocks) writeBlockSums(sums, dk + keyAt, dv + valueAt, keyRow, valueRow, S, x.rank, K, V);
      else writeKeyGradients(dk + keyAt, dv + valueAt, keyRow, valueRow, S, K, V, sums);
    }
  }
}

function packQueryTiles(
  x: Terms, q: usize, o: usize, dO: usize, lse: usize, rest: usize, dLse: usize, T: i32, H: i32, K: i32, V: i32, scale: f32, tile: usize,
): void {
  const Kp = pad8(K), Vp = pad8(V), Rp = pad8(x.rank), Wp = Kp + Rp;
  const queryRow = <usize>(H * K) << 2, outputRow = <usize>(H * V) << 2, one = <usize>H << 2;
  for (let t = 0; t < T; t += QUERIES, tile += queryTile(Kp, Vp, Rp)) {
    const n = min(QUERIES, T - t), upstream = upstreamRowsAt(tile, Wp), statistics = statisticsAt(tile, Kp, Vp, Rp);
    packQueries(x, t, q, queryRow, n, K, scale, tile, Wp);
    if (V != Vp) memory.fill(upstream, 0, <usize>Vp << 8);
    packStrips(dO, outputRow, n, V, 1, upstream, Vp);
    packTile(q, queryRow, n, K, queryPanelsAt(tile, Wp, Vp));
    multiply(queryPanelsAt(tile, Wp, Vp), <usize>Kp << 8, scale);
    packTile(dO, outputRow, n, V, upstreamPanelsAt(tile, Kp, Vp, Rp));
    memory.fill(queryGradientsAt(tile, Kp, Vp, Rp), 0, <usize>Kp << 8);
    if (x.dPhiKAt) packTile(x.phiQAt + <usize>t * x.phiQRow, x.phiQRow, n, x.rank, factorPanelsAt(tile, Kp, Vp, Rp));
    memory.fill(factorGradientsAt(tile, Kp, Vp, Rp), 0, <usize>Rp << 8);
    packStatistics(o, dO, lse, rest, dLse, n, V, outputRow, one, statistics);
    o += outputRow << 6;
    dO += outputRow << 6;
    lse += one << 6;
    rest += one << 6;
    dLse += one << 6;
    q += queryRow << 6;
  }
}

function multiply(p: usize, bytes: usize, factor: f32): void {
  const f = f32x4.splat(factor);
  for (const end = p + bytes; p < end; p += 16) v128.store(p, f32x4.mul(f, v128.load(p)));
}

/** All tiles of one head: adds to dq in its tiles of queries, and to the sums of dk and dv, and of the keys' factors. */
function headBwd(
  x: Terms, k: usize, v: usize, keyRow: usize, valueRow: usize, T: i32, S: i32, K: i32, V: i32, causal: bool, window: i32,
  sums: usize, factorSums: usize, s: usize,
): void {
  const Kp = pad8(K), Vp = pad8(V), Rp = pad8(x.rank), Wp = Kp + Rp, shift = S - T, size = queryTile(Kp, Vp, Rp);
  for (let j = 0; j < S; j += KEYS, k += keyRow << 6, v += valueRow << 6, sums += <usize>(Kp + Vp) << 8, factorSums += <usize>Rp << 8) {
    const n = min(KEYS, S - j);
    packKeyPanels(k, keyRow, n, K, keyPanelsAt(s) + (<usize>x.rank << 5), <usize>Wp << 5);
    packKeyPanels(v, valueRow, n, V, valuePanelsAt(s, Wp), <usize>Vp << 5);
    packTile(k, keyRow, n, K, keysAt(s, Wp, Vp));
    if (x.rank) {
      const phi = x.phiKAt + <usize>j * x.phiKRow;
      packKeyFactors(phi, x.phiKRow, n, x.rank, keyPanelsAt(s), <usize>Wp << 5);
      if (x.dPhiQAt && x.rank > NARROW) packTile(phi, x.phiKRow, n, x.rank, factorKeysAt(s, Kp, Vp, Rp));
    }
    let tile = queryTilesAt(s, Kp, Vp, Rp);
    for (let t = 0; t < T; t += QUERIES, tile += size) {
      const last = min(t + QUERIES, T) - 1;
      if (endKey(last, S, shift, causal) <= j || firstKey(t, shift, window) >= j + KEYS) continue;
      tileBwd(x, tile, t, j, last + 1 - t, S, shift, x.rank + K, Kp, Vp, Rp, causal, window, s);
      keysBwd(x, tile, t, j, last + 1 - t, n, S, shift, Kp, Vp, Rp, causal, window, sums, factorSums, s);
    }
  }
}

/** P and dS of a tile of n queries, and what it adds to dq and to the gradients of the terms; those of the keys' factors are left. */
function tileBwd(
  x: Terms, tile: usize, t: i32, j: i32, n: i32, S: i32, shift: i32, width: i32, Kp: i32, Vp: i32, Rp: i32, causal: bool, window: i32,
  s: usize,
): void {
  const Wp = Kp + Rp, upstream = upstreamRowsAt(tile, Wp), statistics = statisticsAt(tile, Kp, Vp, Rp);
  const dq = queryGradientsAt(tile, Kp, Vp, Rp), dPhi = factorGradientsAt(tile, Kp, Vp, Rp), factorKeys = factorKeysAt(s, Kp, Vp, Rp);
  for (let r = 0; r < n; r += 4) {
    const i = <usize>r, col = firstColumn(t + r, j, shift, window), end = endColumn(t + r, j, S, shift, causal);
    if (col >= end) continue;
    const P = s + i * SCORES_ROW, dS = gradientsAt(s) + i * SCORES_ROW, rows = min(4, n - r), last = min(end, S - j);
    stripScores(tile + i * (<usize>Wp << 2), width, Wp, keyPanelsAt(s), col, end, P);
    addTerms(x, P, t + r, j, rows, col, last, shift);
    hide(P, t + r, j, col, end, S, shift, causal, window);
    hideKeys(x, P, j, 4, col, last);
    stripScores(upstream + i * (<usize>Vp << 2), Vp, Vp, valuePanelsAt(s, Wp), col, end, dS);
    weightsBwd(P, dS, col, end, statistics + (i << 2), powersAt(s));
    addTermGradients(x, dS, t + r, j, rows, col, last, shift);
    stripOutputs(dS, keysAt(s, Wp, Vp), col, end, dq + i * (<usize>Kp << 2), Kp);
    if (!x.dPhiQAt) continue;
    const to = dPhi + i * (<usize>Rp << 2);
    if (x.rank > NARROW) stripOutputs(dS, factorKeys, col, end, to, Rp);
    else narrowOutputs(dS, keyPanelsAt(s), <usize>Wp << 5, col, end, x.rank, to, <usize>Rp << 2);
  }
}

/** dv += P^T dO, dk += dS^T q, and the same of factors, for n keys, 8 at a time, over the strips that see one of them. */
function keysBwd(
  x: Terms, tile: usize, t: i32, j: i32, queries: i32, n: i32, S: i32, shift: i32, Kp: i32, Vp: i32, Rp: i32, causal: bool, window: i32,
  sums: usize, factorSums: usize, s: usize,
): void {
  const q = queryPanelsAt(tile, Kp + Rp, Vp), upstream = upstreamPanelsAt(tile, Kp, Vp, Rp), values = sums + (<usize>Kp << 8);
  const factors = factorPanelsAt(tile, Kp, Vp, Rp);
  for (let c = 0; c < n; c += 8) {
    let r = 0, stop = (queries + 3) & ~3;
    while (r < stop && endColumn(t + r, j, S, shift, causal) <= c) r += 4;
    while (r < stop && firstColumn(t + stop - 4, j, shift, window) > c) stop -= 4;
    const at = <usize>r * SCORES_ROW + (<usize>c << 2), row = <usize>r << 5, key = <usize>c << 5;
    columnUpdate(s + at, upstream + row, stop - r, values + key, Vp);
    columnUpdate(gradientsAt(s) + at, q + row, stop - r, sums + key, Kp);
    if (x.dPhiKAt) columnUpdate(gradientsAt(s) + at, factors + row, stop - r, factorSums + key, Rp);
  }
}

/** 8 rows of the sums, in panels, += weights^T times `rows` rows in panels. */
// @ts-ignore: decorator
@inline
function columnUpdate(weights: usize, panels: usize, rows: i32, sums: usize, padded: i32): void {
  for (let col = 0; col < padded; col += 8, panels += TILE_PANEL, sums += TILE_PANEL)
    panelUpdate(weights, SCORES_ROW, panels, rows, sums, sums, 8, 0, 0, 0, 0);
}

function writeQueryGradients(x: Terms, dq: usize, T: i32, H: i32, K: i32, V: i32, scale: f32, s: usize): void {
  const Kp = pad8(K), Vp = pad8(V), Rp = pad8(x.rank), row = <usize>(H * K) << 2;
  let tile = queryTilesAt(s, Kp, Vp, Rp);
  for (let t = 0; t < T; t += QUERIES, tile += queryTile(Kp, Vp, Rp), dq += row << 6) {
    const n = min(QUERIES, T - t);
    copyRows(queryGradientsAt(tile, Kp, Vp, Rp), <usize>Kp << 2, n, K, scale, dq, row);
    if (x.dPhiQAt) addPacked(factorGradientsAt(tile, Kp, Vp, Rp), <usize>Rp << 2, x.dPhiQAt + <usize>t * x.phiQRow, x.phiQRow, n, x.rank);
  }
}

function addKeyFactorGradients(x: Terms, S: i32, factorSums: usize): void {
  if (!x.dPhiKAt) return;
  for (let j = 0; j < S; j += KEYS, factorSums += <usize>pad8(x.rank) << 8)
    addPanels(factorSums, x.dPhiKAt + <usize>j * x.phiKRow, x.phiKRow, min(KEYS, S - j), x.rank);
}

function writeKeyGradients(dk: usize, dv: usize, keyRow: usize, valueRow: usize, S: i32, K: i32, V: i32, sums: usize): void {
  for (let j = 0; j < S; j += KEYS, dk += keyRow << 6, dv += valueRow << 6) {
    sums = writePanels(sums, dk, keyRow, min(KEYS, S - j), K);
    sums = writePanels(sums, dv, valueRow, min(KEYS, S - j), V);
  }
}

/** Panels of a tile to n rows; returns where the panels end. */
function writePanels(src: usize, dst: usize, stride: usize, n: i32, width: i32): usize {
  for (let col = 0; col < width; col += 8, src += TILE_PANEL) unpackPanel(src, 32, dst, stride, n, width, col);
  return src;
}
