/** The delta rules forward, chunk by chunk (README, section 5). */
import { diagonalBlock, stretchKeys, stretchQueries } from '../wasm/lib/blocks.as';
import { C, clearEach, decayPairs, fetch, innerSegments, SEGMENT, SQUARE, SQUARE_ROW, scaleRows, stateBytes } from '../wasm/lib/chunk.as';
import { madd } from '../wasm/lib/math.as';
import { PANEL_ROW, panelUpdate, rowsTimesRows, sums4, tileProduct } from '../wasm/lib/product.as';
import { packMatrix, packPanel, packRows, pad8, unpackMatrix, unpackPanel } from '../wasm/lib/rows.as';
import {
  denseStates, fetchWrites, keyAt, keyStride, PER_CHANNEL, Plan, panelAt, planOf, readDecays, readKeys, readStrengths, restAt, solveAt,
  solveStride, valueAt, valueStride,
} from './plan.as';
import { tokenFwd } from './token.as';

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
 * deltaStarts; sequence after sequence), residuals [*, HV, V] and solves [*, HV, 16], a row of X for every token.
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
  for (let h: usize = 0; h < heads; h++) packMatrix(p.initial ? p.initial + h * dense : 0, K, V, states + h * size);
  for (let t = 0; t < T; t += SEGMENT) {
    if (t) {
      memory.copy(p.starts, states, heads * size);
      p.starts += heads * size;
    }
    const end = min(t + SEGMENT, T);
    for (let h = 0; h < p.HV; h++)
      for (let c = t; c < end; c += C) chunkFwd(p, first + c, min(C, end - c), h, o, states + <usize>h * size);
  }
  for (let h: usize = 0; h < heads; h++) unpackMatrix(states + h * size, K, V, final + h * dense);
}

function chunkFwd(p: Plan, t: i32, n: i32, h: i32, o: usize, state: usize): void {
  const tiles = (n + 3) >> 2;
  fetch(keyAt(p, p.q, t, h), keyStride(p), n, p.K, panelAt(p, 0));
  fetchWrites(p, p.v, t, n, h);
  fetch(valueAt(p, o, t, h), valueStride(p), n, p.V, panelAt(p, 0));
  readKeys(p, t, n, h);
  readStrengths(p, t, n, h);
  readDecays(p, t, n, h);
  memory.fill(p.solve, 0, SQUARE);
  if (p.gates == PER_CHANNEL) prepareChannels(p, tiles);
  else prepareHead(p, t, n, h, tiles);
  solve(p, solveAt(p, t, h), n, tiles);
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

/**
 * From -A in `solve`: X = -A - A B X (B = diag(beta)) row by row, of which n rows are kept in `saved`; then `solve` becomes
 * I + X B = (I + A B)^-1, which takes v - k S to the residuals.
 */
function solve(p: Plan, saved: usize, n: i32, tiles: i32): void {
  const X = p.solve, row = p.spare, b = p.strengths;
  const b0 = v128.load(b), b1 = v128.load(b, 16), b2 = v128.load(b, 32), b3 = v128.load(b, 48);
  for (let i = 0, x = X; i < tiles << 2; i++, x += SQUARE_ROW) {
    let x0 = v128.load(x), x1 = v128.load(x, 16), x2 = v128.load(x, 32), x3 = v128.load(x, 48);
    v128.store(row, f32x4.mul(x0, b0));
    v128.store(row, f32x4.mul(x1, b1), 16);
    v128.store(row, f32x4.mul(x2, b2), 32);
    v128.store(row, f32x4.mul(x3, b3), 48);
    for (let y = X, f = row; y < x; y += SQUARE_ROW, f += 4) {
      const s = v128.load_splat<f32>(f);
      x0 = madd(s, v128.load(y), x0);
      x1 = madd(s, v128.load(y, 16), x1);
      x2 = madd(s, v128.load(y, 32), x2);
      x3 = madd(s, v128.load(y, 48), x3);
    }
    v128.store(x, x0);
    v128.store(x, x1, 16);
    v128.store(x, x2, 32);
    v128.store(x, x3, 48);
    if (i >= n) continue;
    v128.store(saved, x0);
    v128.store(saved, x1, 16);
    v128.store(saved, x2, 32);
    v128.store(saved, x3, 48);
    saved += solveStride(p);
  }
  for (let i: usize = 0, x = X; i < <usize>tiles << 2; i++, x += SQUARE_ROW) {
    v128.store(x, f32x4.mul(v128.load(x), b0));
    v128.store(x, f32x4.mul(v128.load(x, 16), b1), 16);
    v128.store(x, f32x4.mul(v128.load(x, 32), b2), 32);
    v128.store(x, f32x4.mul(v128.load(x, 48), b3), 48);
    store<f32>(x + (i << 2), 1);
  }
}

/** 8 columns of v at a time: residuals, o = qg S + P (beta * residuals), S = chunkDecay * S + kc^T (beta * residuals). */
function valuesFwd(p: Plan, t: i32, n: i32, h: i32, o: usize, state: usize): void {
  const Kp = p.Kp, V = p.V, row = <usize>Kp << 2, stride = valueStride(p), rows = (n + 3) & ~3;
  const v = valueAt(p, p.v, t, h), residuals = valueAt(p, p.residuals, t, h), first = panelAt(p, 0), tile = panelAt(p, 1);
  const residual = panelAt(p, 2), write = panelAt(p, 3);
  o = valueAt(p, o, t, h);
  for (let col = 0; col < V; col += 8, state += <usize>Kp << 5) {
    packPanel(v, stride, n, V, col, first, C);
    for (let r: usize = 0; r < <usize>rows; r += 4)
      tileProduct(p.keyReads + r * row, row, state, Kp, 0, 0, 0, 0, first + (r << 5), PANEL_ROW, true);
    for (let r: usize = 0; r < <usize>rows; r += 4)
      tileProduct(p.solve + r * SQUARE_ROW, SQUARE_ROW, first, <i32>r + 4, 0, 0, 0, 0, residual + (r << 5), PANEL_ROW, false);
    unpackPanel(residual, PANEL_ROW, residuals, stride, n, V, col);
    scaleRows(residual, p.strengths, write, PANEL_ROW);
    for (let r = 0; r < n; r += 4) {
      const whole = V - col >= 8 && n - r >= 4, at = <usize>r;
      const out = o + at * stride, c = whole ? out + (<usize>col << 2) : tile;
      tileProduct(
        p.queryReads + at * row, row, state, Kp, p.scores + at * SQUARE_ROW, SQUARE_ROW, write, r + 4, c, whole ? stride : PANEL_ROW, false,
      );
      if (!whole) unpackPanel(tile, PANEL_ROW, out, stride, min(4, n - r), V, col);
    }
    panelUpdate(p.keyWrites, row, write, rows, state, state, Kp, p.chunkDecay, 0, 0, 0);
  }
}
