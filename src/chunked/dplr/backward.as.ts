/** DPLR backward, from the last chunk to the first (README, section 4). */
import { C, channelDecays, decayToEnd, fetch, innerSegments, PANEL, SEGMENT, startState, stateBytes } from '../wasm/lib/chunk.as';
import { madd } from '../wasm/lib/math.as';
import { PANEL_ROW, panelUpdate, storeTransposed, tileProduct } from '../wasm/lib/product.as';
import { packMatrix, packPanel, packRows, pad8, transposePanels, unpackMatrix, unpackPanel } from '../wasm/lib/rows.as';
import { keysBwd } from './keys.as';
import { Back, BACK_BYTES, CORNER, chunkBytes, denseStates, keyAt, PANEL_PAIR, Plan, panelAt, planOf, SCORE_ROW, valueAt } from './plan.as';
import { fetchWrites, prepare, readChunk } from './scores.as';

/** Bytes of scratch of dplrBwd, without the offsets. T is the longest sequence. */
export function dplrBwdScratch(T: i32, H: i32, K: i32, V: i32): usize {
  const held = (min(T, SEGMENT) + C - 1) / C + 1;
  return chunkBytes(pad8(K)) + BACK_BYTES + 3 * (<usize>pad8(V) << 7) + <usize>(2 * H + held) * stateBytes(K, V);
}

/**
 * Gradients of sum(o * dO) + sum(final * dFinal); tensors, z and starts as in dplrFwd. The states before the chunks of a segment are
 * computed again from the one at its start. dInitial may be 0.
 */
export function dplrBwd(
  q: usize, k: usize, v: usize, a: usize, b: usize, g: usize, initial: usize, z: usize, starts: usize, dO: usize, dFinal: usize,
  dq: usize, dk: usize, dv: usize, da: usize, db: usize, dg: usize, dInitial: usize,
  offsets: usize, N: i32, H: i32, K: i32, V: i32, scale: f32, s: usize,
): void {
  const p = planOf(s, q, k, v, a, b, g, initial, z, starts, H, K, V, scale), back = changetype<Back>(p.rest);
  back.dO = dO;
  back.dq = dq;
  back.dk = dk;
  back.dv = dv;
  back.da = da;
  back.db = db;
  back.dg = dg;
  back.values = p.rest + BACK_BYTES;
  back.upstream = back.values + (<usize>p.Vp << 7);
  back.upstreamPanels = back.upstream + (<usize>p.Vp << 7);
  back.dS = back.upstreamPanels + (<usize>p.Vp << 7);
  back.dSt = back.dS + <usize>H * stateBytes(K, V);
  back.held = back.dSt + <usize>H * stateBytes(K, V);
  for (let n = 0; n < N; n++, offsets += 4) {
    const t = load<i32>(offsets), T = load<i32>(offsets, 4) - t;
    sequenceBwd(p, back, t, T, dFinal, dInitial);
    p.starts += <usize>(innerSegments(T) * H) * stateBytes(K, V);
    dFinal += denseStates(p);
    if (initial) p.initial += denseStates(p);
    if (dInitial) dInitial += denseStates(p);
  }
}

function sequenceBwd(p: Plan, back: Back, first: i32, T: i32, dFinal: usize, dInitial: usize): void {
  const K = p.K, V = p.V, dense = <usize>(K * V) << 2, size = stateBytes(K, V), heads = <usize>p.H;
  for (let h: usize = 0; h < heads; h++) {
    packMatrix(dFinal + h * dense, K, V, back.dS + h * size);
    transposePanels(back.dS + h * size, K, V, back.dSt + h * size);
  }
  for (let segment = innerSegments(T); segment >= 0; segment--) {
    const t = segment * SEGMENT, n = min(SEGMENT, T - t);
    for (let h: usize = 0; h < heads; h++) {
      startState(p.initial ? p.initial + h * dense : 0, p.starts, segment, h, heads, K, V, back.held);
      segmentBwd(p, back, first + t, n, <i32>h);
    }
  }
  if (dInitial) for (let h: usize = 0; h < heads; h++) unpackMatrix(back.dS + h * size, K, V, dInitial + h * dense);
}

/** T tokens of one head: the states before its chunks, then the chunks from the last to the first. */
function segmentBwd(p: Plan, back: Back, first: i32, T: i32, h: i32): void {
  const size = stateBytes(p.K, p.V), dS = back.dS + <usize>h * size, dSt = back.dSt + <usize>h * size;
  const chunks = (T + C - 1) / C;
  for (let c = 0; c < chunks; c++) advance(p, back, first + c * C, min(C, T - c * C), h, back.held + <usize>c * size);
  for (let c = chunks - 1; c >= 0; c--) {
    const t = first + c * C, n = min(C, T - c * C), tiles = (n + 3) >> 2;
    fetchWrites(p, t, n, h, true);
    fetch(valueAt(p, back.dO, t, h), p.values, n, p.V, panelAt(p, 0));
    readChunk(p, t, n, h);
    packPairs(valueAt(p, p.v, t, h), p.values, n, p.V, back.values);
    packPairs(valueAt(p, p.z, t, h), p.values, n, p.V, back.values + (<usize>p.Vp << 4));
    packPairs(valueAt(p, back.dO, t, h), p.values, n, p.V, back.upstream);
    prepare(p, tiles);
    transposeScores(p, tiles);
    for (let col = 0; col < p.V; col += 8) valuesBwd(p, back, t, n, h, col, dS + (<usize>(col * p.Kp) << 2));
    keysBwd(p, back, t, n, h, back.held + <usize>c * size, dSt);
    statesBwd(p, back, tiles, dS, dSt);
  }
}

/** packRows for the first or the second blocks of pairs: after 4 rows, 4 are left out. */
function packPairs(src: usize, stride: usize, n: i32, width: i32, dst: usize): void {
  const pair = <usize>pad8(width) << 5;
  for (; n > 0; n -= 4, src += stride << 2, dst += pair) packRows(src, stride, min(4, n), width, dst, 4, 1);
}

/** The transposed state after the chunk, from the one before: to = chunkDecay * from + v kc^T + z bc^T. */
function advance(p: Plan, back: Back, t: i32, n: i32, h: i32, from: usize): void {
  const Kp = p.Kp, Vp = p.Vp, keys = panelAt(p, 0), values = back.values, rows = <usize>Vp << 6, panel = <usize>Vp << 5;
  fetchWrites(p, t, n, h, true);
  packRows(valueAt(p, p.v, t, h), p.values, n, p.V, values, C, 1);
  packRows(valueAt(p, p.z, t, h), p.values, n, p.V, values + rows, C, 1);
  channelDecays(keyAt(p, p.g, t, h), p.keys, n, p.K, p.decays, p.chunkDecay);
  let to = from + stateBytes(p.K, p.V);
  for (let col = 0; col < p.K; col += 8, from += panel, to += panel) {
    const at = <usize>col << 2;
    packPanel(keyAt(p, p.k, t, h), p.keys, n, p.K, col, keys, C);
    packPanel(keyAt(p, p.b, t, h), p.keys, n, p.K, col, keys + PANEL, C);
    decayToEnd(keys, p.decays + at, <usize>Kp << 2);
    decayToEnd(keys + PANEL, p.decays + at, <usize>Kp << 2);
    panelUpdate(values, <usize>Vp << 2, keys, 2 * C, from, to, Vp, 0, p.chunkDecay + at, 0, 0);
  }
}

/** The transpose of the scores, from the diagonal of pairs on. */
function transposeScores(p: Plan, tiles: i32): void {
  for (let r: usize = 0, rows = <usize>tiles << 1; r < rows; r++)
    for (let c: usize = 0, columns = (r | 1) + 1; c < columns; c++) {
      const src = p.scores + r * (4 * SCORE_ROW) + (c << 4);
      storeTransposed(
        p.transposed + c * (4 * SCORE_ROW) + (r << 4), SCORE_ROW,
        v128.load(src), v128.load(src, SCORE_ROW), v128.load(src, 2 * SCORE_ROW), v128.load(src, 3 * SCORE_ROW),
      );
    }
}

/** dz and dv of 8 columns, from the last pair to the first; dz into the rows and panels of `upstream`. */
function valuesBwd(p: Plan, back: Back, t: i32, n: i32, h: i32, col: i32, dS: usize): void {
  const Kp = p.Kp, row = <usize>Kp << 2, V = p.V, valueRow = <usize>p.Vp << 2, stride = p.values, tile = panelAt(p, 0);
  const panel = back.upstreamPanels + (<usize>col << 7), tiles = (n + 3) >> 2;
  for (let c = tiles - 1; c >= 0; c--) {
    const i = <usize>c, count = min(4, n - 4 * c), later = (tiles - c) << 3, pair = panel + i * PANEL_PAIR;
    const writes = p.writes + i * (row << 3), own = p.transposed + i * CORNER, rows = back.upstream + i * (valueRow << 3) + (<usize>col << 2);
    packPanel(rows, valueRow, 4, 8, 0, pair, 4);
    memory.fill(pair + 128, 0, 128);
    tileProduct(writes + (row << 2), row, dS, Kp, own + 4 * SCORE_ROW, SCORE_ROW, pair, later, pair + 128, PANEL_ROW, false);
    solveBlockBwd(own + 4 * SCORE_ROW + 16, pair + 128);
    unpackPanel(pair + 128, PANEL_ROW, rows + (valueRow << 2), valueRow, 4, 8, 0);
    const dv = valueAt(p, back.dv, t + 4 * c, h), direct = V - col >= 8 && count == 4, out = direct ? dv + (<usize>col << 2) : tile;
    tileProduct(writes, row, dS, Kp, own, SCORE_ROW, pair, later, out, direct ? stride : PANEL_ROW, false);
    if (!direct) unpackPanel(tile, PANEL_ROW, dv, stride, count, V, col);
  }
}

/** Completes dz of a pair with what it gets from its own tokens: back substitution. `own` is a corner of the transposed scores. */
function solveBlockBwd(own: usize, dz: usize): void {
  for (let at = dz; at < dz + 32; at += 16) {
    const y3 = v128.load(at, 96);
    const y2 = madd(v128.load_splat<f32>(own + 2 * SCORE_ROW, 12), y3, v128.load(at, 64));
    let y1 = madd(v128.load_splat<f32>(own + SCORE_ROW, 12), y3, v128.load(at, 32));
    y1 = madd(v128.load_splat<f32>(own + SCORE_ROW, 8), y2, y1);
    let y0 = madd(v128.load_splat<f32>(own, 12), y3, v128.load(at));
    y0 = madd(v128.load_splat<f32>(own, 8), y2, y0);
    v128.store(at, madd(v128.load_splat<f32>(own, 4), y1, y0));
    v128.store(at, y1, 32);
    v128.store(at, y2, 64);
  }
}

/** dS = chunkDecay * dS + qg^T dO + ag^T dz (and dS^T), 8 columns of v at a time. */
function statesBwd(p: Plan, back: Back, tiles: i32, dS: usize, dSt: usize): void {
  const Kp = p.Kp;
  let panel = back.upstreamPanels;
  for (let col = 0; col < p.V; col += 8, dS += <usize>Kp << 5, dSt += 256, panel += 1024)
    panelUpdate(p.reads, <usize>Kp << 2, panel, tiles << 3, dS, dS, Kp, p.chunkDecay, 0, dSt, <usize>p.Vp << 5);
}
