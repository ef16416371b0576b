/** DPLR forward, chunk by chunk (README, section 3). */
import { C, fetch, innerSegments, SEGMENT, stateBytes } from '../wasm/lib/chunk.as';
import { madd } from '../wasm/lib/math.as';
import { PANEL_ROW, panelUpdate, tileProduct } from '../wasm/lib/product.as';
import { packMatrix, packPanel, pad8, unpackMatrix, unpackPanel } from '../wasm/lib/rows.as';
import { chunkBytes, denseStates, PANEL_PAIR, Plan, panelAt, planOf, SCORE_ROW, valueAt } from './plan.as';
import { fetchWrites, prepare, readChunk } from './scores.as';
import { tokenFwd } from './token.as';

/** Bytes of scratch of dplrFwd, without the offsets. */
export function dplrFwdScratch(H: i32, K: i32, V: i32): usize {
  return chunkBytes(pad8(K)) + <usize>H * stateBytes(K, V);
}

/** Floats of the states at the starts of all segments but the first of a sequence of T tokens; dplrFwd writes them for dplrBwd. */
export function dplrStarts(T: i32, H: i32, K: i32, V: i32): i32 {
  return innerSegments(T) * H * <i32>(stateBytes(K, V) >> 2);
}

/**
 * q, k, a, b, g [*, H, K], v, o [*, H, V], where * counts tokens; sequence n is tokens offsets[n] to offsets[n + 1]. initial (0: zeros)
 * and final are [N, H, K, V]. For the backward pass it writes z [*, H, V] and `starts` (see dplrStarts; sequence after
 * sequence); 0 for either where there will be none.
 */
export function dplrFwd(
  q: usize, k: usize, v: usize, a: usize, b: usize, g: usize, initial: usize, o: usize, final: usize, z: usize, starts: usize,
  offsets: usize, N: i32, H: i32, K: i32, V: i32, scale: f32, s: usize,
): void {
  const p = planOf(s, q, k, v, a, b, g, initial, z, starts, H, K, V, scale);
  for (let n = 0; n < N; n++, offsets += 4, final += denseStates(p)) {
    const t = load<i32>(offsets), T = load<i32>(offsets, 4) - t;
    if (T == 1) tokenFwd(p, t, o, final);
    else sequenceFwd(p, t, T, o, final);
    if (initial) p.initial += denseStates(p);
  }
}

function sequenceFwd(p: Plan, first: i32, T: i32, o: usize, final: usize): void {
  const K = p.K, V = p.V, heads = <usize>p.H, dense = <usize>(K * V) << 2, size = stateBytes(K, V), states = p.rest;
  for (let h: usize = 0; h < heads; h++) packMatrix(p.initial ? p.initial + h * dense : 0, K, V, states + h * size);
  for (let t = 0; t < T; t += SEGMENT) {
    if (t && p.starts) {
      memory.copy(p.starts, states, heads * size);
      p.starts += heads * size;
    }
    const end = min(t + SEGMENT, T);
    for (let h = 0; h < p.H; h++)
      for (let c = t; c < end; c += C) chunkFwd(p, first + c, min(C, end - c), h, o, states + <usize>h * size);
  }
  for (let h: usize = 0; h < heads; h++) unpackMatrix(states + h * size, K, V, final + h * dense);
}

function chunkFwd(p: Plan, t: i32, n: i32, h: i32, o: usize, state: usize): void {
  const tiles = (n + 3) >> 2;
  fetchWrites(p, t, n, h, false);
  fetch(valueAt(p, o, t, h), p.values, n, p.V, panelAt(p, 0));
  if (p.z) fetch(valueAt(p, p.z, t, h), p.values, n, p.V, panelAt(p, 0));
  readChunk(p, t, n, h);
  prepare(p, tiles);
  for (let col = 0; col < p.V; col += 8, state += <usize>p.Kp << 5)
    valuesFwd(p, valueAt(p, p.v, t, h), valueAt(p, p.z, t, h), valueAt(p, o, t, h), n, col, state);
}

/** z, o and the state after the chunk, 8 columns of v. The panel holds v and z, pair after pair. */
function valuesFwd(p: Plan, v: usize, z: usize, o: usize, n: i32, col: i32, state: usize): void {
  const Kp = p.Kp, row = <usize>Kp << 2, stride = p.values, panel = panelAt(p, 0), tile = panelAt(p, 2), whole = p.V - col >= 8;
  let reads = p.reads, scores = p.scores, pair = panel, rows = 0;
  for (let left = n; left > 0; left -= 4, rows += 8) {
    const count = min(4, left), mine = pair + 128;
    packPanel(v, stride, count, p.V, col, pair, 4);
    tileProduct(reads + (row << 2), row, state, Kp, scores + 4 * SCORE_ROW, SCORE_ROW, panel, rows, mine, PANEL_ROW, false);
    solveBlock(scores + 4 * SCORE_ROW + (<usize>rows << 2), pair);
    if (p.z) unpackPanel(mine, PANEL_ROW, z, stride, count, p.V, col);
    const direct = whole && count == 4, out = direct ? o + (<usize>col << 2) : tile;
    tileProduct(reads, row, state, Kp, scores, SCORE_ROW, panel, rows + 8, out, direct ? stride : PANEL_ROW, false);
    if (!direct) unpackPanel(tile, PANEL_ROW, o, stride, count, p.V, col);
    reads += row << 3;
    scores += 8 * SCORE_ROW;
    pair += PANEL_PAIR;
    v += stride << 2;
    z += stride << 2;
    o += stride << 2;
  }
  panelUpdate(p.writes, row, panel, rows, state, state, Kp, p.chunkDecay, 0, 0, 0);
}

/** Completes z of a pair with what its own tokens wrote: forward substitution. `own` is the corner of the scores of a. */
function solveBlock(own: usize, pair: usize): void {
  const b = own + 16, r1 = SCORE_ROW, r2 = 2 * SCORE_ROW, r3 = 3 * SCORE_ROW;
  for (let at = pair; at < pair + 32; at += 16) {
    const v0 = v128.load(at), v1 = v128.load(at, 32), v2 = v128.load(at, 64), z0 = v128.load(at, 128);
    let z1 = madd(v128.load_splat<f32>(own + r1), v0, v128.load(at, 160));
    let z2 = madd(v128.load_splat<f32>(own + r2), v0, v128.load(at, 192));
    let z3 = madd(v128.load_splat<f32>(own + r3), v0, v128.load(at, 224));
    z2 = madd(v128.load_splat<f32>(own + r2, 4), v1, z2);
    z3 = madd(v128.load_splat<f32>(own + r3, 4), v1, z3);
    z3 = madd(v128.load_splat<f32>(own + r3, 8), v2, z3);
    z1 = madd(v128.load_splat<f32>(b + r1), z0, z1);
    z2 = madd(v128.load_splat<f32>(b + r2), z0, z2);
    z3 = madd(v128.load_splat<f32>(b + r3), z0, z3);
    z2 = madd(v128.load_splat<f32>(b + r2, 4), z1, z2);
    z3 = madd(v128.load_splat<f32>(b + r3, 4), z1, z3);
    z3 = madd(v128.load_splat<f32>(b + r3, 8), z2, z3);
    v128.store(at, z1, 160);
    v128.store(at, z2, 192);
    v128.store(at, z3, 224);
  }
}
