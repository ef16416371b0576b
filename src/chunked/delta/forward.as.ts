/** The delta rules forward, chunk by chunk (README, section 5). */
import { diagonalBlock, stretchKeys, stretchQueries } from '../wasm/lib/blocks.as';
import { C, clearEach, decayPairs, fetch, innerSegments, SEGMENT, SQUARE, SQUARE_ROW, scaleRows, stateBytes } from '../wasm/lib/chunk.as';
import { madd } from '../wasm/lib/math.as';
import { PANEL_ROW, panelUpdate, rowsTimesRows, sums4, tileOf, tileRows } from '../wasm/lib/product.as';
import { packMatrix, packPanel, packRows, pad8, unpackMatrix, unpackPanel } from '../wasm/lib/rows.as';
import { copyRow } from '../wasm/lib/tail.as';
import {
  denseStates, gateAt, gateStride, gateWidth, keyAt, keyStride, PER_CHANNEL, Plan, panelAt, planOf, readDecays, readKeys, readStrengths, restAt, solveAt,
  valueAt, valueStride,
} from './plan.as';
import { tokenFwd } from './token.as';

/** Bytes of states that stay in the second-level cache beside the rest: so many heads take turns, chunk by chunk. */
// @ts-ignore: decorator
@inline
const NEAR_STATES: usize = 131072;

/** Bytes of scratch of deltaFwd, without the offsets. */
export function deltaFwdScratch(HV: i32, K: i32, V: i32): usize {
  return restAt(0, pad8(K)) + <usize>HV * stateBytes(K, V);
}

/** Floats of the states at the starts of all segments but the first of a sequence of T tokens; deltaFwd writes them for deltaBwd. */
export function deltaStarts(T: i32, HV: i32, K: i32, V: i32): i32 {
  return innerSegments(T) * HV * <i32>(stateBytes(K, V) >> 2);
}

/**
 * q, k [*, H, K], v, o [*, HV, V], beta [*, HV], g [*, HV, K] (gates = 2), [*, HV] (1) or none (0), where * counts tokens; sequence n
 * is tokens offsets[n] to offsets[n + 1]. initial (0: zeros) and final are [N, HV, K, V]. For the backward pass it writes `starts` (see
 * deltaStarts; sequence after sequence), residuals [*, HV, V] and solves [*, HV, 16], a row of -A for every token; all are 0 where there
 * will be none.
 */
export function deltaFwd(
  q: usize, k: usize, v: usize, beta: usize, g: usize, initial: usize, o: usize, final: usize,
  residuals: usize, solves: usize, starts: usize,
  offsets: usize, N: i32, H: i32, HV: i32, K: i32, V: i32, gates: i32, scale: f32, s: usize,
): void {
  const p = planOf(s, q, k, v, beta, g, initial, residuals, solves, starts, H, HV, K, V, gates, scale);
  for (let n = 0; n < N; n++, offsets += 4, final += denseStates(p)) {
    const t = load<i32>(offsets), T = load<i32>(offsets, 4) - t;
    if (T == 1) tokenFwd(p, t, o, final);
    else sequenceFwd(p, t, T, o, final);
    if (initial) p.initial += denseStates(p);
  }
}

function sequenceFwd(p: Plan, first: i32, T: i32, o: usize, final: usize): void {
  const K = p.K, V = p.V, heads = <usize>p.HV, dense = <usize>(K * V) << 2, size = stateBytes(K, V), states = p.rest;
  memory.fill(p.scores, 0, 2 * SQUARE); // what is above the diagonal of blocks stays so
  for (let h: usize = 0; h < heads; h++) packMatrix(p.initial ? p.initial + h * dense : 0, K, V, states + h * size);
  const near = max(1, <i32>(NEAR_STATES / size));
  for (let t = 0; t < T; t += SEGMENT) {
    if (t && p.starts) {
      memory.copy(p.starts, states, heads * size);
      p.starts += heads * size;
    }
    const end = min(t + SEGMENT, T);
    for (let h = 0; h < p.HV; h += near)
      for (let c = t; c < end; c += C) headsFwd(p, first + c, min(C, end - c), h, min(h + near, p.HV), o, states);
  }
  for (let h: usize = 0; h < heads; h++) unpackMatrix(states + h * size, K, V, final + h * dense);
}

/** A chunk of neighbouring heads: what they read and write lies side by side, so it is fetched for all of them at once. */
function headsFwd(p: Plan, t: i32, n: i32, first: i32, end: i32, o: usize, states: usize): void {
  fetchHeads(p, t, n, first, end, o);
  for (let h = first; h < end; h++) chunkFwd(p, t, n, h, o, states + <usize>h * stateBytes(p.K, p.V));
}

function fetchHeads(p: Plan, t: i32, n: i32, h: i32, end: i32, o: usize): void {
  const heads = end - h, sink = panelAt(p, 0), keys = ((end - 1) / p.group - h / p.group + 1) * p.K, values = heads * p.V;
  fetch(keyAt(p, p.q, t, h), keyStride(p), n, keys, sink);
  fetch(keyAt(p, p.k, t, h), keyStride(p), n, keys, sink);
  if (p.gates) fetch(gateAt(p, p.g, t, h), gateStride(p), n, heads * gateWidth(p), sink);
  fetch(valueAt(p, p.v, t, h), valueStride(p), n, values, sink);
  fetch(valueAt(p, o, t, h), valueStride(p), n, values, sink);
  if (p.residuals) fetch(valueAt(p, p.residuals, t, h), valueStride(p), n, values, sink);
}

function chunkFwd(p: Plan, t: i32, n: i32, h: i32, o: usize, state: usize): void {
  const tiles = (n + 3) >> 2;
  readKeys(p, t, n, h);
  readStrengths(p, t, n, h);
  readDecays(p, t, n, h);
  if (p.gates == PER_CHANNEL) prepareChannels(p, tiles);
  else prepareHead(p, t, n, h, tiles);
  if (p.solves) for (let r = 0; r < n; r++) copyRow(p.solve + <usize>r * SQUARE_ROW, solveAt(p, t + r, h), C);
  valuesFwd(p, t, n, h, o, state);
}

/**
 * P_ij = q_i . (k_j * decay j+1..i), j <= i, and -A_ij likewise with k_i, j < i; queries and (negated) keys decayed from the chunk's start,
 * keys decayed to its end. Only the first `tiles` blocks of 4 tokens are filled.
 */
function prepareChannels(p: Plan, tiles: i32): void {
  const Kp = p.Kp, row = <usize>Kp << 2, block = row << 2, decays = p.decays;
  const reads = p.queryReads, keyReads = p.keyReads, writes = p.keyWrites;
  for (let a: usize = 0; a < <usize>tiles; a++) {
    const at = a * block, rows = a * (4 * SQUARE_ROW), corner = a * (4 * SQUARE_ROW + 16);
    diagonalBlock(p.qRows + at, p.kRows + at, decays + at, reads + at, writes + at, row, p.scores + corner, SQUARE_ROW, false);
    strictBlock(p.kRows + at, decays + at, keyReads + at, row, p.solve + corner);
    if (!a) continue;
    // Here reads of block a start at its own beginning, and the keys of earlier blocks end there.
    rowsTimesRows(reads + at, row, writes, row, Kp, p.scores + rows, SQUARE_ROW, <i32>a << 2);
    rowsTimesRows(keyReads + at, row, writes, row, Kp, p.solve + rows, SQUARE_ROW, <i32>a << 2);
    stretchQueries(reads + at, decays, row, a);
    stretchQueries(keyReads + at, decays, row, a);
    stretchKeys(writes, a << 2, decays + at, row);
  }
}

/** Scores of a block's keys with its earlier keys, negated (4 x 4, strictly lower triangle); keys decayed from the block's start, negated. */
function strictBlock(k: usize, decay: usize, reads: usize, row: usize, scores: usize): void {
  const zero = f32x4.splat(0), row2 = row << 1, row3 = row2 + row;
  let s10 = zero, s20 = zero, s21 = zero, s30 = zero, s31 = zero, s32 = zero;
  for (const end = k + row; k < end; k += 16, decay += 16, reads += 16) {
    const k0 = v128.load(k), k1 = f32x4.neg(v128.load(k + row)), k2 = f32x4.neg(v128.load(k + row2)), k3 = f32x4.neg(v128.load(k + row3));
    const d1 = v128.load(decay + row), d2 = v128.load(decay + row2), d3 = v128.load(decay + row3);
    let w = f32x4.mul(k0, d1);
    s10 = madd(k1, w, s10);
    w = f32x4.mul(w, d2);
    s20 = madd(k2, w, s20);
    s30 = madd(k3, f32x4.mul(w, d3), s30);
    w = f32x4.mul(v128.load(k + row), d2);
    s21 = madd(k2, w, s21);
    s31 = madd(k3, f32x4.mul(w, d3), s31);
    s32 = madd(k3, f32x4.mul(v128.load(k + row2), d3), s32);
    let d = v128.load(decay);
    v128.store(reads, f32x4.mul(f32x4.neg(k0), d));
    d = f32x4.mul(d, d1);
    v128.store(reads + row, f32x4.mul(k1, d));
    d = f32x4.mul(d, d2);
    v128.store(reads + row2, f32x4.mul(k2, d));
    d = f32x4.mul(d, d3);
    v128.store(reads + row3, f32x4.mul(k3, d));
  }
  v128.store(scores, zero);
  v128.store(scores, sums4(s10, zero, zero, zero), SQUARE_ROW);
  v128.store(scores, sums4(s20, s21, zero, zero), 2 * SQUARE_ROW);
  v128.store(scores, sums4(s30, s31, s32, zero), 3 * SQUARE_ROW);
}

/** prepareChannels for gates per head, or none. */
function prepareHead(p: Plan, t: i32, n: i32, h: i32, tiles: i32): void {
  const Kp = p.Kp, row = <usize>Kp << 2;
  packRows(keyAt(p, p.k, t, h), keyStride(p), n, p.K, p.keyReads, C, -1);
  for (let a: usize = 0; a < <usize>tiles; a++) {
    const at = a * (row << 2), rows = a * (4 * SQUARE_ROW), columns = <i32>(a + 1) << 2;
    rowsTimesRows(p.qRows + at, row, p.kRows, row, Kp, p.scores + rows, SQUARE_ROW, columns);
    rowsTimesRows(p.keyReads + at, row, p.kRows, row, Kp, p.solve + rows, SQUARE_ROW, columns);
    decayPairs(p.scores + rows, p.pairs + rows, 4, columns);
    decayPairs(p.solve + rows, p.pairs + rows, 4, columns);
  }
  clearEach(p.solve, SQUARE_ROW + 4, C);
  scaleRows(p.qRows, p.head + 64, p.queryReads, row);
  scaleRows(p.keyReads, p.head + 64, p.keyReads, row);
  scaleRows(p.kRows, p.head + 128, p.keyWrites, row);
}

/** 8 columns of v at a time: residuals, o = qg S + P (beta * residuals), S = chunkDecay * S + kc^T (beta * residuals). */
function valuesFwd(p: Plan, t: i32, n: i32, h: i32, o: usize, state: usize): void {
  const Kp = p.Kp, V = p.V, row = <usize>Kp << 2, stride = valueStride(p), rows = (n + 3) & ~3;
  const v = valueAt(p, p.v, t, h), residuals = valueAt(p, p.residuals, t, h), values = panelAt(p, 0), outputs = panelAt(p, 1);
  const residual = panelAt(p, 2), write = panelAt(p, 3);
  o = valueAt(p, o, t, h);
  for (let col = 0; col < V; col += 8, state += <usize>Kp << 5) {
    const whole = n == C && V - col >= 8, at = <usize>col << 2, ld = whole ? stride : PANEL_ROW;
    if (!whole) packPanel(v, stride, n, V, col, values, C);
    for (let left = rows, r: usize = 0, from = whole ? v + at : values; left > 0; ) {
      const count = tileRows(left), A = p.solve + r * SQUARE_ROW, mine = r << 5;
      tileOf(count, p.keyReads + r * row, row, state, Kp, A, SQUARE_ROW, write, <i32>r, from, ld, residual + mine, PANEL_ROW);
      substitute(A + (r << 2), p.strengths + (r << 2), residual + mine, write + mine, count == 6);
      from += ld * <usize>count;
      r += count;
      left -= count;
    }
    if (p.residuals) unpackPanel(residual, PANEL_ROW, residuals, stride, n, V, col);
    for (let left = rows, r: usize = 0, out = whole ? o + at : outputs; left > 0; ) {
      const count = tileRows(left);
      tileOf(count, p.queryReads + r * row, row, state, Kp, p.scores + r * SQUARE_ROW, SQUARE_ROW, write, <i32>r + count, 0, 0, out, ld);
      out += ld * <usize>count;
      r += count;
      left -= count;
    }
    if (!whole) unpackPanel(outputs, PANEL_ROW, o, stride, n, V, col);
    panelUpdate(p.keyWrites, row, write, rows, state, state, Kp, p.chunkDecay, 0, 0, 0);
  }
}

/**
 * Forward substitution in a tile of 4 rows, or 6: E_i = E_i - sum over j < i of A_ij beta_j E_j, and write = beta * E; `A` is the corner of
 * -A. Straight through: loops of 1 to 5 steps would cost more than what they do.
 */
function substitute(A: usize, beta: usize, E: usize, write: usize, six: bool): void {
  const r1 = A + SQUARE_ROW, r2 = r1 + SQUARE_ROW, r3 = r2 + SQUARE_ROW, r4 = r3 + SQUARE_ROW, r5 = r4 + SQUARE_ROW;
  for (const end = E + 32; E < end; E += 16, write += 16) {
    const w0 = f32x4.mul(v128.load_splat<f32>(beta), v128.load(E));
    v128.store(write, w0);
    const e1 = madd(v128.load_splat<f32>(r1), w0, v128.load(E, 32)), w1 = f32x4.mul(v128.load_splat<f32>(beta, 4), e1);
    v128.store(E, e1, 32);
    v128.store(write, w1, 32);
    let e2 = madd(v128.load_splat<f32>(r2), w0, v128.load(E, 64));
    e2 = madd(v128.load_splat<f32>(r2, 4), w1, e2);
    const w2 = f32x4.mul(v128.load_splat<f32>(beta, 8), e2);
    v128.store(E, e2, 64);
    v128.store(write, w2, 64);
    let e3 = madd(v128.load_splat<f32>(r3), w0, v128.load(E, 96));
    e3 = madd(v128.load_splat<f32>(r3, 4), w1, e3);
    e3 = madd(v128.load_splat<f32>(r3, 8), w2, e3);
    const w3 = f32x4.mul(v128.load_splat<f32>(beta, 12), e3);
    v128.store(E, e3, 96);
    v128.store(write, w3, 96);
    if (!six) continue;
    let e4 = madd(v128.load_splat<f32>(r4), w0, v128.load(E, 128));
    e4 = madd(v128.load_splat<f32>(r4, 4), w1, e4);
    e4 = madd(v128.load_splat<f32>(r4, 8), w2, e4);
    e4 = madd(v128.load_splat<f32>(r4, 12), w3, e4);
    const w4 = f32x4.mul(v128.load_splat<f32>(beta, 16), e4);
    v128.store(E, e4, 128);
    v128.store(write, w4, 128);
    let e5 = madd(v128.load_splat<f32>(r5), w0, v128.load(E, 160));
    e5 = madd(v128.load_splat<f32>(r5, 4), w1, e5);
    e5 = madd(v128.load_splat<f32>(r5, 8), w2, e5);
    e5 = madd(v128.load_splat<f32>(r5, 12), w3, e5);
    e5 = madd(v128.load_splat<f32>(r5, 16), w4, e5);
    v128.store(E, e5, 160);
    v128.store(write, f32x4.mul(v128.load_splat<f32>(beta, 20), e5), 160);
  }
}
