/** The delta rules backward, from the last chunk to the first (README, section 6). */
import { diagonalBlock, stretchKeys, stretchQueries } from '../wasm/lib/blocks.as';
import {
  C, clearEach, decayPairs, decayToEnd, fetch, innerSegments, PANEL, SEGMENT, SQUARE, SQUARE_ROW, scaleRows, startState, stateBytes,
} from '../wasm/lib/chunk.as';
import { hsum, madd } from '../wasm/lib/math.as';
import { PANEL_ROW, panelUpdate, rowsTimesRows, storeTransposed, tileOf, tileRows } from '../wasm/lib/product.as';
import { packMatrix, packPanel, packRows, pad8, transposePanels, unpackMatrix, unpackPanel } from '../wasm/lib/rows.as';
import { keysBwd } from './keys.as';
import {
  denseStates, fetchWrites, HELD_BYTES, Held, headAt, headStride, heldOf, keyAt, keyStride, PER_CHANNEL, PER_HEAD, Plan, panelAt, planOf,
  readDecays, readKeys, readStrengths, restAt, solveAt, solveStride, valueAt, valueStride,
} from './plan.as';

// States are held transposed ([V, K] in panels of K): their only use here is to be read by rows of V and rowsum(S * dS). The gradient
// on the state is held both ways: dS for gradients on written values, dS^T for dk. "Total" is the gradient on a residual through
// everything, beta Y in the README; it is dv, and its negative is the gradient on what keys read.

/** Bytes of scratch of deltaBwd, without the offsets. T is the longest sequence. */
export function deltaBwdScratch(T: i32, HV: i32, K: i32, V: i32): usize {
  const chunks = (min(T, SEGMENT) + C - 1) / C, rows = <usize>pad8(V) << 6;
  return restAt(0, pad8(K)) + HELD_BYTES + 6 * rows + <usize>(2 * HV + chunks + 1) * stateBytes(K, V) + <usize>chunks * decaysBytes(pad8(K));
}

// @ts-ignore: decorator
@inline
function decaysBytes(Kp: i32): usize { return <usize>(17 * Kp) << 2; }

/**
 * Gradients of sum(o * dO) + sum(final * dFinal); tensors as in deltaFwd, with what that wrote. dg and dInitial may be 0. T is the
 * longest sequence.
 */
export function deltaBwd(
  q: usize, k: usize, beta: usize, g: usize, initial: usize, residuals: usize, solves: usize, starts: usize, dO: usize, dFinal: usize,
  dq: usize, dk: usize, dv: usize, dbeta: usize, dg: usize, dInitial: usize, T: i32,
  offsets: usize, N: i32, H: i32, HV: i32, K: i32, V: i32, gates: i32, scale: f32, s: usize,
): void {
  const p = planOf(s, q, k, 0, beta, g, initial, residuals, solves, starts, H, HV, K, V, gates, scale);
  const b = heldOf(p, (min(T, SEGMENT) + C - 1) / C);
  b.dO = dO;
  b.dq = dq;
  b.dk = dk;
  b.dv = dv;
  b.dbeta = dbeta;
  b.dg = dg;
  memory.fill(p.scores, 0, SQUARE); // what is below the diagonal of blocks stays so
  for (let n = 0; n < N; n++, offsets += 4, dFinal += denseStates(p)) {
    const t = load<i32>(offsets), length = load<i32>(offsets, 4) - t;
    sequenceBwd(p, b, t, length, dFinal, dInitial);
    p.starts += <usize>(innerSegments(length) * HV) * stateBytes(K, V);
    if (initial) p.initial += denseStates(p);
    if (dInitial) dInitial += denseStates(p);
  }
}

function sequenceBwd(p: Plan, b: Held, first: i32, T: i32, dFinal: usize, dInitial: usize): void {
  const K = p.K, V = p.V, heads = <usize>p.HV, dense = <usize>(K * V) << 2, size = stateBytes(K, V);
  for (let h: usize = 0; h < heads; h++) {
    packMatrix(dFinal + h * dense, K, V, b.dS + h * size);
    transposePanels(b.dS + h * size, K, V, b.dSt + h * size);
  }
  for (let segment = innerSegments(T); segment >= 0; segment--) {
    const t = segment * SEGMENT;
    for (let h: usize = 0; h < heads; h++) {
      startState(p.initial ? p.initial + h * dense : 0, p.starts, segment, h, heads, K, V, b.states);
      segmentBwd(p, b, first + t, min(SEGMENT, T - t), <i32>h);
    }
  }
  if (dInitial) for (let h: usize = 0; h < heads; h++) unpackMatrix(b.dS + h * size, K, V, dInitial + h * dense);
}

/** T tokens of one head: the states before its chunks, then the chunks from the last to the first. */
function segmentBwd(p: Plan, b: Held, first: i32, T: i32, h: i32): void {
  const size = stateBytes(p.K, p.V), chunks = (T + C - 1) / C;
  for (let c = 0; c < chunks; c++) {
    useDecays(p, b, c);
    advance(p, b, first + c * C, min(C, T - c * C), h, b.states + <usize>c * size);
  }
  for (let c = chunks - 1; c >= 0; c--) {
    useDecays(p, b, c);
    chunkBwd(p, b, first + c * C, min(C, T - c * C), h, b.states + <usize>c * size);
  }
}

/** Decays per channel are made once for the two passes over a segment. */
function useDecays(p: Plan, b: Held, c: i32): void {
  if (p.gates != PER_CHANNEL) return;
  p.decays = b.decays + <usize>c * decaysBytes(p.Kp);
  p.chunkDecay = p.decays + (<usize>p.Kp << 6);
}

/** Residuals of a chunk, and beta times them. */
function readWrites(p: Plan, b: Held, t: i32, n: i32, h: i32): void {
  const row = <usize>p.Vp << 2;
  readStrengths(p, t, n, h);
  packRows(valueAt(p, p.residuals, t, h), valueStride(p), n, p.V, b.residualRows, C, 1);
  scaleRows(b.residualRows, p.strengths, b.writeRows, row);
}

/** The transposed state after a chunk from the one before it, `from`. */
function advance(p: Plan, b: Held, t: i32, n: i32, h: i32, from: usize): void {
  const K = p.K, Vp = p.Vp, row = <usize>p.Kp << 2, panel = <usize>Vp << 5, keys = panelAt(p, 0);
  fetchWrites(p, p.residuals, t, n, h);
  readWrites(p, b, t, n, h);
  readDecays(p, t, n, h);
  for (let col = 0, to = from + stateBytes(K, p.V); col < K; col += 8, from += panel, to += panel) {
    const at = <usize>col << 2;
    packPanel(keyAt(p, p.k, t, h), keyStride(p), n, K, col, keys, C);
    if (p.gates == PER_CHANNEL) decayToEnd(keys, p.decays + at, row);
    else scaleRows(keys, p.head + 128, keys, PANEL_ROW);
    panelUpdate(b.writeRows, <usize>Vp << 2, keys, (n + 3) & ~3, from, to, Vp, 0, p.chunkDecay + at, 0, 0);
  }
}

function chunkBwd(p: Plan, b: Held, t: i32, n: i32, h: i32, before: usize): void {
  const tiles = (n + 3) >> 2, size = stateBytes(p.K, p.V), dS = b.dS + <usize>h * size, dSt = b.dSt + <usize>h * size;
  fetch(keyAt(p, p.q, t, h), keyStride(p), n, p.K, panelAt(p, 0));
  fetch(valueAt(p, b.dO, t, h), valueStride(p), n, p.V, panelAt(p, 0));
  readKeys(p, t, n, h);
  readWrites(p, b, t, n, h);
  packRows(valueAt(p, b.dO, t, h), valueStride(p), n, p.V, b.dORows, C, 1);
  if (p.gates == PER_HEAD) readDecays(p, t, n, h);
  if (p.gates == PER_CHANNEL) prepareChannelsBwd(p, tiles);
  else prepareHeadBwd(p, tiles);
  readSolve(p, t, n, h, tiles);
  totals(p, b, t, n, h, dS);
  dScoresOf(p, b, tiles);
  keysBwd(p, b, t, n, h, before, dSt);
  statesBwd(p, b, n, dS, dSt);
}

/** As prepareChannels, but P transposed, no A, and keys not negated. */
function prepareChannelsBwd(p: Plan, tiles: i32): void {
  const Kp = p.Kp, row = <usize>Kp << 2, block = row << 2, reads = p.queryReads, writes = p.keyWrites;
  for (let a: usize = 0; a < <usize>tiles; a++) {
    const at = a * block, corner = a * (4 * SQUARE_ROW + 16);
    diagonalBlock(p.qRows + at, p.kRows + at, p.decays + at, reads + at, writes + at, row, p.scores + corner, SQUARE_ROW, true);
    if (!a) continue;
    for (let c: usize = 0; c < a; c++)
      rowsTimesRows(writes + c * block, row, reads + at, row, Kp, p.scores + c * (4 * SQUARE_ROW) + a * 16, SQUARE_ROW, 4);
    stretchQueries(reads + at, p.decays, row, a);
    stretchKeys(writes, a << 2, p.decays + at, row);
  }
  decayFromStart(p.kRows, p.decays, p.keyReads, row);
}

/** dst[r] = src[r] * product of the decays of rows 0 to r, for 16 rows. */
function decayFromStart(src: usize, decays: usize, dst: usize, row: usize): void {
  for (let p: usize = 0; p < row; p += 16) {
    let d = f32x4.splat(1);
    for (let at = p, end = p + (row << 4); at < end; at += row) {
      d = f32x4.mul(d, v128.load(decays + at));
      v128.store(dst + at, f32x4.mul(d, v128.load(src + at)));
    }
  }
}

function prepareHeadBwd(p: Plan, tiles: i32): void {
  const Kp = p.Kp, row = <usize>Kp << 2;
  for (let a: usize = 0; a < <usize>tiles; a++)
    rowsTimesRows(p.kRows + a * (row << 2), row, p.qRows, row, Kp, p.scores + a * (4 * SQUARE_ROW), SQUARE_ROW, tiles << 2);
  decayPairs(p.scores, p.pairs + SQUARE, tiles << 2, tiles << 2);
  scaleRows(p.qRows, p.head + 64, p.queryReads, row);
  scaleRows(p.kRows, p.head + 64, p.keyReads, row);
  scaleRows(p.kRows, p.head + 128, p.keyWrites, row);
}

/** solve = -A^T from the rows that the forward pass kept: all blocks of 4 x 4 on and above the diagonal. */
function readSolve(p: Plan, t: i32, n: i32, h: i32, tiles: i32): void {
  const saved = solveAt(p, t, h), stride = solveStride(p), zero = f32x4.splat(0);
  for (let j = 0; j < tiles; j++) {
    const at = saved + <usize>(j << 2) * stride, left = n - (j << 2);
    for (let i: usize = 0; i <= <usize>j; i++) {
      const x = at + (i << 4);
      storeTransposed(
        p.solve + i * (4 * SQUARE_ROW) + (<usize>j << 4), SQUARE_ROW, v128.load(x), left > 1 ? v128.load(x + stride) : zero,
        left > 2 ? v128.load(x + 2 * stride) : zero, left > 3 ? v128.load(x + 3 * stride) : zero,
      );
    }
  }
}

/**
 * 8 columns of v at a time, from the last rows to the first: gradient on what is written, P^T dO + kc dS; through the solve it becomes Y,
 * the gradient on beta * residual through everything. dbeta = rowsum(Y * residual), dv = beta * Y. Fills `upstream` and `totalRows`
 * (-beta * Y).
 */
function totals(p: Plan, b: Held, t: i32, n: i32, h: i32, dS: usize): void {
  const Kp = p.Kp, V = p.V, row = <usize>Kp << 2, rows = (n + 3) & ~3, valueRow = <usize>p.Vp << 2;
  const Y = panelAt(p, 0), scaled = panelAt(p, 1), sums = panelAt(p, 2), dv = valueAt(p, b.dv, t, h);
  memory.fill(sums, 0, PANEL);
  let upstream = b.upstream;
  for (let col = 0; col < V; col += 8, dS += <usize>Kp << 5, upstream += 2 * PANEL) {
    const at = <usize>col << 2;
    packPanel(b.dORows, valueRow, C, p.Vp, col, upstream, C);
    for (let left = rows, later = 0; left > 0; ) {
      const count = tileRows(left), r = <usize>(left - count), y = Y + (r << 5), corner = r * (SQUARE_ROW + 4);
      tileOf(count, p.keyWrites + r * row, row, dS, Kp, p.scores + corner, SQUARE_ROW, upstream + (r << 5), later + count, 0, 0, y, PANEL_ROW);
      const after = <usize>count << 2, At = p.solve + corner;
      if (later) tileOf(count, At + after, SQUARE_ROW, scaled + (<usize>left << 5), later, 0, 0, 0, 0, y, PANEL_ROW, y, PANEL_ROW);
      substituteBack(At, p.strengths + (r << 2), y, scaled + (r << 5), count == 6);
      left -= count;
      later += count;
    }
    finishTotals(p, Y, b.residualRows + at, sums, b.totalRows + at, upstream + PANEL, rows);
    unpackPanel(Y, PANEL_ROW, dv, valueStride(p), n, V, col);
  }
  for (let r = 0, out = headAt(p, b.dbeta, t, h); r < n; r++, out += headStride(p)) store<f32>(out, hsum(v128.load(sums + (<usize>r << 4))));
}

/** Back substitution in a tile of 4 rows, or 6: Y_i = Y_i - sum over j > i of A_ji beta_j Y_j, and scaled = beta * Y; `At` is a corner of -A^T. */
function substituteBack(At: usize, beta: usize, Y: usize, scaled: usize, six: bool): void {
  const r1 = At + SQUARE_ROW, r2 = r1 + SQUARE_ROW, r3 = r2 + SQUARE_ROW, r4 = r3 + SQUARE_ROW;
  for (const end = Y + 32; Y < end; Y += 16, scaled += 16) {
    let y3 = v128.load(Y, 96), y2 = v128.load(Y, 64), y1 = v128.load(Y, 32), y0 = v128.load(Y);
    if (six) {
      const z5 = f32x4.mul(v128.load_splat<f32>(beta, 20), v128.load(Y, 160));
      const y4 = madd(v128.load_splat<f32>(r4, 20), z5, v128.load(Y, 128)), z4 = f32x4.mul(v128.load_splat<f32>(beta, 16), y4);
      v128.store(Y, y4, 128);
      v128.store(scaled, z5, 160);
      v128.store(scaled, z4, 128);
      y3 = madd(v128.load_splat<f32>(r3, 16), z4, madd(v128.load_splat<f32>(r3, 20), z5, y3));
      y2 = madd(v128.load_splat<f32>(r2, 16), z4, madd(v128.load_splat<f32>(r2, 20), z5, y2));
      y1 = madd(v128.load_splat<f32>(r1, 16), z4, madd(v128.load_splat<f32>(r1, 20), z5, y1));
      y0 = madd(v128.load_splat<f32>(At, 16), z4, madd(v128.load_splat<f32>(At, 20), z5, y0));
    }
    const z3 = f32x4.mul(v128.load_splat<f32>(beta, 12), y3);
    v128.store(Y, y3, 96);
    v128.store(scaled, z3, 96);
    y2 = madd(v128.load_splat<f32>(r2, 12), z3, y2);
    y1 = madd(v128.load_splat<f32>(r1, 12), z3, y1);
    y0 = madd(v128.load_splat<f32>(At, 12), z3, y0);
    const z2 = f32x4.mul(v128.load_splat<f32>(beta, 8), y2);
    v128.store(Y, y2, 64);
    v128.store(scaled, z2, 64);
    y1 = madd(v128.load_splat<f32>(r1, 8), z2, y1);
    y0 = madd(v128.load_splat<f32>(At, 8), z2, y0);
    const z1 = f32x4.mul(v128.load_splat<f32>(beta, 4), y1);
    v128.store(Y, y1, 32);
    v128.store(scaled, z1, 32);
    y0 = madd(v128.load_splat<f32>(At, 4), z1, y0);
    v128.store(Y, y0);
    v128.store(scaled, f32x4.mul(v128.load_splat<f32>(beta), y0));
  }
}

/** sums += Y * residual; Y becomes beta * Y, and the negative goes to a row of totalRows and of the panel. */
function finishTotals(p: Plan, Y: usize, residual: usize, sums: usize, total: usize, panel: usize, rows: i32): void {
  const row = <usize>p.Vp << 2;
  for (let b = p.strengths, end = b + (<usize>rows << 2); b < end; b += 4, Y += 32, residual += row, sums += 16, total += row, panel += 32) {
    const f = v128.load_splat<f32>(b), y0 = v128.load(Y), y1 = v128.load(Y, 16);
    v128.store(sums, madd(y1, v128.load(residual, 16), madd(y0, v128.load(residual), v128.load(sums))));
    const z0 = f32x4.mul(f, y0), z1 = f32x4.mul(f, y1);
    v128.store(Y, z0);
    v128.store(Y, z1, 16);
    const m0 = f32x4.neg(z0), m1 = f32x4.neg(z1);
    v128.store(total, m0);
    v128.store(total, m1, 16);
    v128.store(panel, m0);
    v128.store(panel, m1, 16);
  }
}

/**
 * Gradients on scores, 8 rows for every block of 4 tokens: dP = dO (beta * residual)^T, then dA = -total (beta * residual)^T. Per channel
 * only blocks up to the diagonal; per head times the decays of pairs, strictly below the diagonal, with that of dP kept apart.
 */
function dScoresOf(p: Plan, b: Held, tiles: i32): void {
  const row = <usize>p.Vp << 2, diagonal = p.head + 192;
  for (let a: usize = 0; a < <usize>tiles; a++) {
    const at = a * (row << 2), out = p.dScores + a * (8 * SQUARE_ROW), columns = p.gates == PER_CHANNEL ? <i32>(a + 1) << 2 : tiles << 2;
    rowsTimesRows(b.dORows + at, row, b.writeRows, row, p.Vp, out, SQUARE_ROW, columns);
    rowsTimesRows(b.totalRows + at, row, b.writeRows, row, p.Vp, out + 4 * SQUARE_ROW, SQUARE_ROW, columns);
    if (p.gates == PER_CHANNEL) continue;
    decayPairs(out, p.pairs + a * (4 * SQUARE_ROW), 4, columns);
    decayPairs(out + 4 * SQUARE_ROW, p.pairs + a * (4 * SQUARE_ROW), 4, columns);
    const corner = out + (a << 4);
    for (let i: usize = 0; i < 4; i++) store<f32>(diagonal + (a << 4) + (i << 2), load<f32>(corner + i * (SQUARE_ROW + 4)));
    clearEach(corner, SQUARE_ROW + 4, 4);
    clearEach(corner + 4 * SQUARE_ROW, SQUARE_ROW + 4, 4);
  }
}

/** dS = chunkDecay * dS + qg^T dO - kg^T total (and dS^T), 8 columns of v at a time. */
function statesBwd(p: Plan, b: Held, n: i32, dS: usize, dSt: usize): void {
  const Kp = p.Kp, row = <usize>Kp << 2, rows = (n + 3) & ~3;
  let upstream = b.upstream;
  for (let col = 0; col < p.V; col += 8, dS += <usize>Kp << 5, dSt += 256, upstream += 2 * PANEL) {
    if (rows == C) {
      panelUpdate(p.queryReads, row, upstream, 2 * C, dS, dS, Kp, p.chunkDecay, 0, dSt, <usize>p.Vp << 5);
    } else {
      panelUpdate(p.queryReads, row, upstream, rows, dS, dS, Kp, p.chunkDecay, 0, 0, 0);
      panelUpdate(p.keyReads, row, upstream + PANEL, rows, dS, dS, Kp, 0, 0, dSt, <usize>p.Vp << 5);
    }
  }
}
