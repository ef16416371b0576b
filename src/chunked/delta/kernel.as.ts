/**
 * The gated delta rule, forward and backward, chunk by chunk on the tensors where they lie (derivation: README.md). Gates are per
 * channel (KDA), per head (gated delta rule) or absent (delta rule).
 *
 * A chunk is 16 tokens in 4 blocks of 4, with decays as wasm/lib/chunk.as.ts makes them. Names: Kp, Vp = K, V padded to multiples of
 * 8. Rows past the end of a sequence have q = k = v = beta = 0 and g = 0. "Panel": 8 columns, 32 bytes a row
 * (wasm/lib/product.as.ts). A "residual" is what a value head has yet to learn of a value, v - S^T k; beta times it is written.
 */
import { diagonalBlock, stretchKeys, stretchQueries } from '../wasm/lib/blocks.as';
import {
  C, channelDecays, decayPairs, decayToEnd, fetch, finishGates, headDecays, headGates, innerSegments, PANEL, SEGMENT, SQUARE, SQUARE_ROW,
  scaleRows, startState, stateBytes,
} from '../wasm/lib/chunk.as';
import { exp1, hsum, madd } from '../wasm/lib/math.as';
import { PANEL_ROW, panelUpdate, rowsTimesRows, storeTransposed, sums4, tileProduct } from '../wasm/lib/product.as';
import { packMatrix, packPanel, packRows, pad8, transposePanels, unpackMatrix, unpackPanel } from '../wasm/lib/rows.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** Kinds of gates. */
// @ts-ignore: decorator
@inline
const PER_HEAD: i32 = 1;
// @ts-ignore: decorator
@inline
const PER_CHANNEL: i32 = 2;

/** Sizes, tensors and scratch of a call. It lies at the start of the scratch memory. */
// @ts-ignore: decorator
@unmanaged
class Plan {
  H: i32;
  HV: i32;
  /** Value heads that share a head of q and k. */
  group: i32;
  K: i32;
  V: i32;
  Kp: i32;
  Vp: i32;
  gates: i32;
  scale: f32;
  // Tensors; see deltaFwd and deltaBwd.
  q: usize;
  k: usize;
  v: usize;
  beta: usize;
  g: usize;
  initial: usize;
  residuals: usize;
  solves: usize;
  starts: usize;
  // [16, 16] blocks. scores: P (transposed in the backward pass); solve: X, then what applies it; spare: one more for the solve;
  // pairs: decays of pairs and their transpose; dScores: 32 rows, see dScoresOf.
  scores: usize;
  solve: usize;
  spare: usize;
  pairs: usize;
  dScores: usize;
  /** 16 floats each: decay of a token, decay from the chunk's start, decay to its end, diagonal of dP. */
  head: usize;
  /** [16]. */
  strengths: usize;
  /** Panels of 16 rows. */
  panels: usize;
  // [16, Kp]: keyReads are keys decayed from the chunk's start (negated in the forward pass), right after queries decayed likewise.
  qRows: usize;
  kRows: usize;
  decays: usize;
  queryReads: usize;
  keyReads: usize;
  keyWrites: usize;
  chunkDecay: usize;
  /** What only one of the kernels needs. */
  rest: usize;
}

/** Bytes of a Plan, rounded up. */
// @ts-ignore: decorator
@inline
const PLAN_BYTES: usize = 256;

/** Where the scratch of a chunk ends. */
function restAt(s: usize, Kp: i32): usize {
  return s + PLAN_BYTES + 7 * SQUARE + 320 + 10 * PANEL + 6 * (<usize>Kp << 6) + (<usize>Kp << 2);
}

function planOf(
  s: usize, q: usize, k: usize, v: usize, beta: usize, g: usize, initial: usize, residuals: usize, solves: usize, starts: usize,
  H: i32, HV: i32, K: i32, V: i32, gates: i32, scale: f32,
): Plan {
  const p = changetype<Plan>(s), Kp = pad8(K);
  p.H = H;
  p.HV = HV;
  p.group = HV / H;
  p.K = K;
  p.V = V;
  p.Kp = Kp;
  p.Vp = pad8(V);
  p.gates = gates;
  p.scale = scale;
  p.q = q;
  p.k = k;
  p.v = v;
  p.beta = beta;
  p.g = g;
  p.initial = initial;
  p.residuals = residuals;
  p.solves = solves;
  p.starts = starts;
  p.scores = s + PLAN_BYTES;
  p.solve = p.scores + SQUARE;
  p.spare = p.solve + SQUARE;
  p.pairs = p.spare + SQUARE;
  p.dScores = p.pairs + 2 * SQUARE;
  p.head = p.dScores + 2 * SQUARE;
  p.strengths = p.head + 256;
  p.panels = p.strengths + 64;
  const rows = <usize>Kp << 6;
  p.qRows = p.panels + 10 * PANEL;
  p.kRows = p.qRows + rows;
  p.decays = p.kRows + rows;
  p.queryReads = p.decays + rows;
  p.keyReads = p.queryReads + rows;
  p.keyWrites = p.keyReads + rows;
  p.chunkDecay = p.keyWrites + rows;
  p.rest = p.chunkDecay + (<usize>Kp << 2);
  if (!gates) headDecays(0, 0, 0, Kp, p.head, p.pairs, p.chunkDecay); // no gate: decays of 1, the same for every chunk
  return p;
}

// Where a tensor holds token t of value head h, and bytes from token to token.

// @ts-ignore: decorator
@inline
function keyStride(p: Plan): usize { return <usize>(p.H * p.K) << 2; }
// @ts-ignore: decorator
@inline
function keyAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * keyStride(p) + (<usize>(h / p.group * p.K) << 2); }
// @ts-ignore: decorator
@inline
function valueStride(p: Plan): usize { return <usize>(p.HV * p.V) << 2; }
// @ts-ignore: decorator
@inline
function valueAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * valueStride(p) + (<usize>(h * p.V) << 2); }
/** beta, and gates per head. */
// @ts-ignore: decorator
@inline
function headStride(p: Plan): usize { return <usize>p.HV << 2; }
// @ts-ignore: decorator
@inline
function headAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * headStride(p) + (<usize>h << 2); }
// @ts-ignore: decorator
@inline
function gateWidth(p: Plan): i32 { return p.gates == PER_CHANNEL ? p.K : p.gates; }
// @ts-ignore: decorator
@inline
function gateStride(p: Plan): usize { return <usize>(p.HV * gateWidth(p)) << 2; }
// @ts-ignore: decorator
@inline
function gateAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * gateStride(p) + (<usize>(h * gateWidth(p)) << 2); }
// @ts-ignore: decorator
@inline
function solveStride(p: Plan): usize { return <usize>p.HV * SQUARE_ROW; }
// @ts-ignore: decorator
@inline
function solveAt(p: Plan, t: i32, h: i32): usize { return p.solves + <usize>t * solveStride(p) + <usize>h * SQUARE_ROW; }
// @ts-ignore: decorator
@inline
function panelAt(p: Plan, i: usize): usize { return p.panels + i * PANEL; }
/** Bytes of the states of all heads, dense. */
// @ts-ignore: decorator
@inline
function denseStates(p: Plan): usize { return <usize>p.HV * <usize>(p.K * p.V) << 2; }

/** Fetches the keys, gates and residuals or values of a chunk. */
function fetchWrites(p: Plan, values: usize, t: i32, n: i32, h: i32): void {
  const sink = panelAt(p, 0);
  fetch(keyAt(p, p.k, t, h), keyStride(p), n, p.K, sink);
  if (p.gates) fetch(gateAt(p, p.g, t, h), gateStride(p), n, gateWidth(p), sink);
  fetch(valueAt(p, values, t, h), valueStride(p), n, p.V, sink);
}

/** beta of a chunk, 0 past the end. */
function readStrengths(p: Plan, t: i32, n: i32, h: i32): void {
  let src = headAt(p, p.beta, t, h);
  for (let r = 0; r < C; r++, src += headStride(p)) store<f32>(p.strengths + (<usize>r << 2), r < n ? load<f32>(src) : 0);
}

function readDecays(p: Plan, t: i32, n: i32, h: i32): void {
  if (!p.gates) return;
  const g = gateAt(p, p.g, t, h);
  if (p.gates == PER_HEAD) headDecays(g, gateStride(p), n, p.Kp, p.head, p.pairs, p.chunkDecay);
  else channelDecays(g, gateStride(p), n, p.K, p.decays, p.chunkDecay);
}

/** q (times scale) and k of a chunk. */
function readKeys(p: Plan, t: i32, n: i32, h: i32): void {
  packRows(keyAt(p, p.q, t, h), keyStride(p), n, p.K, p.qRows, C, p.scale);
  packRows(keyAt(p, p.k, t, h), keyStride(p), n, p.K, p.kRows, C, 1);
}

// ---- Forward ------------------------------------------------------------------------------------------------------------------

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
  clearDiagonal(p.solve, SQUARE_ROW + 4, C);
  scaleRows(p.qRows, p.head + 64, p.queryReads, row);
  scaleRows(p.keyReads, p.head + 64, p.keyReads, row);
  scaleRows(p.kRows, p.head + 128, p.keyWrites, row);
}

// @ts-ignore: decorator
@inline
function clearDiagonal(x: usize, step: usize, n: i32): void {
  for (let i = 0; i < n; i++, x += step) store<f32>(x, 0);
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

// ---- A sequence of one token --------------------------------------------------------------------------------------------------

/** Head by head, 8 columns of the state at a time: they are read twice, but from the nearest cache the second time. */
function tokenFwd(p: Plan, t: i32, o: usize, final: usize): void {
  const K = p.K, V = p.V, dense = <usize>(K * V) << 2;
  for (let h = 0; h < p.HV; h++, final += dense) {
    const q = keyAt(p, p.q, t, h), k = keyAt(p, p.k, t, h), v = valueAt(p, p.v, t, h), out = valueAt(p, o, t, h);
    const residual = valueAt(p, p.residuals, t, h), beta = load<f32>(headAt(p, p.beta, t, h));
    const initial = p.initial ? p.initial + <usize>h * dense : 0;
    tokenDecays(p, t, h);
    const qk = dot(q, k, K);
    for (let col = 0; col < V; col += 8) {
      const at = <usize>col << 2, left = V - col, from = initial ? initial + at : 0;
      if (left >= 8) step(p, q, k, v + at, from, out + at, final + at, residual + at, beta, qk, 4, 4);
      else step(p, q, k, v + at, from, out + at, final + at, residual + at, beta, qk, min(4, left), left - 4);
    }
    memory.fill(solveAt(p, t, h), 0, SQUARE_ROW);
  }
}

/** exp(g) of one token for every channel. */
function tokenDecays(p: Plan, t: i32, h: i32): void {
  if (!p.gates) return;
  const g = gateAt(p, p.g, t, h);
  if (p.gates == PER_CHANNEL) channelDecays(g, 0, 1, p.K, p.decays, p.chunkDecay);
  else headDecays(g, 0, 1, p.Kp, p.head, p.pairs, p.chunkDecay);
}

function dot(a: usize, b: usize, n: i32): f32 {
  let sum = f32x4.splat(0);
  for (let i = 0; i < n; i += 4, a += 16, b += 16) sum = madd(loadN(a, n - i), loadN(b, n - i), sum);
  return hsum(sum);
}

/**
 * Up to 8 columns of one token: residual = v - (exp(g) S)^T k, S = exp(g) S + k beta residual^T, o = scale * S^T q. `second` lanes of the
 * second four columns; none where it is below 1.
 */
// @ts-ignore: decorator
@inline
function step(
  p: Plan, q: usize, k: usize, v: usize, initial: usize, o: usize, final: usize, residual: usize, beta: f32, qk: f32, lanes: i32, second: i32,
): void {
  const row = <usize>p.V << 2, decays = p.chunkDecay, bytes = <usize>p.K << 2, zero = f32x4.splat(0);
  let u0 = zero, u1 = zero, w0 = zero, w1 = zero;
  if (initial)
    for (let i: usize = 0, s = initial; i < bytes; i += 4, s += row) {
      const d = load<f32>(decays + i), key = f32x4.splat(d * load<f32>(k + i)), query = f32x4.splat(d * load<f32>(q + i));
      const x0 = loadN(s, lanes);
      u0 = madd(key, x0, u0);
      w0 = madd(query, x0, w0);
      if (second < 1) continue;
      const x1 = loadN(s + 16, second);
      u1 = madd(key, x1, u1);
      w1 = madd(query, x1, w1);
    }
  const b = f32x4.splat(beta), scale = f32x4.splat(p.scale), qks = f32x4.splat(qk);
  const e0 = f32x4.sub(loadN(v, lanes), u0), delta0 = f32x4.mul(b, e0);
  storeN(residual, e0, lanes);
  storeN(o, f32x4.mul(scale, madd(qks, delta0, w0)), lanes);
  let delta1 = zero;
  if (second > 0) {
    const e1 = f32x4.sub(loadN(v + 16, second), u1);
    delta1 = f32x4.mul(b, e1);
    storeN(residual + 16, e1, second);
    storeN(o + 16, f32x4.mul(scale, madd(qks, delta1, w1)), second);
  }
  for (let i: usize = 0; i < bytes; i += 4, final += row) {
    const key = v128.load_splat<f32>(k + i), d = v128.load_splat<f32>(decays + i);
    let x = f32x4.mul(key, delta0), y = f32x4.mul(key, delta1);
    if (initial) {
      x = madd(d, loadN(initial, lanes), x);
      if (second > 0) y = madd(d, loadN(initial + 16, second), y);
      initial += row;
    }
    storeN(final, x, lanes);
    if (second > 0) storeN(final + 16, y, second);
  }
}

// ---- Backward -----------------------------------------------------------------------------------------------------------------
// States are held transposed ([V, K] in panels of K): their only use here is to be read by rows of V and rowsum(S * dS). The gradient
// on the state is held both ways: dS for gradients on written values, dS^T for dk. "Total" is the gradient on a residual through
// everything, beta Y in the README; it is dv, and its negative is the gradient on what keys read.

/** Scratch of the backward pass after the part shared with the forward pass. */
// @ts-ignore: decorator
@unmanaged
class Held {
  dO: usize;
  dq: usize;
  dk: usize;
  dv: usize;
  dbeta: usize;
  dg: usize;
  // [16, Vp].
  residualRows: usize;
  writeRows: usize;
  dORows: usize;
  totalRows: usize;
  /** Panels of 32 rows for every 8 columns of v: dO, then -total. */
  upstream: usize;
  /** dS of every head, then dS^T of every head. */
  dS: usize;
  dSt: usize;
  /** The states before the chunks of a segment and after the last. */
  states: usize;
  /** For every chunk of a segment the decays [16, Kp] and the chunk decay [Kp]: gates per channel. */
  decays: usize;
}

// @ts-ignore: decorator
@inline
const HELD_BYTES: usize = 64;

function heldOf(p: Plan, chunks: i32): Held {
  const b = changetype<Held>(p.rest), rows = <usize>p.Vp << 6, states = <usize>p.HV * stateBytes(p.K, p.V);
  b.residualRows = p.rest + HELD_BYTES;
  b.writeRows = b.residualRows + rows;
  b.dORows = b.writeRows + rows;
  b.totalRows = b.dORows + rows;
  b.upstream = b.totalRows + rows;
  b.dS = b.upstream + 2 * rows;
  b.dSt = b.dS + states;
  b.states = b.dSt + states;
  b.decays = b.states + <usize>(chunks + 1) * stateBytes(p.K, p.V);
  return b;
}

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

/** solve = I + X^T B from the rows of X that the forward pass kept: upper triangle, all blocks of 4 x 4 on and above the diagonal. */
function readSolve(p: Plan, t: i32, n: i32, h: i32, tiles: i32): void {
  const saved = solveAt(p, t, h), stride = solveStride(p);
  for (let j = 0; j < tiles; j++) {
    const b = p.strengths + (<usize>j << 4), at = saved + <usize>(j << 2) * stride, left = n - (j << 2);
    for (let i: usize = 0; i <= <usize>j; i++) {
      const x = at + (i << 4);
      storeTransposed(
        p.solve + i * (4 * SQUARE_ROW) + (<usize>j << 4), SQUARE_ROW,
        f32x4.mul(v128.load_splat<f32>(b), v128.load(x)),
        left > 1 ? f32x4.mul(v128.load_splat<f32>(b, 4), v128.load(x + stride)) : f32x4.splat(0),
        left > 2 ? f32x4.mul(v128.load_splat<f32>(b, 8), v128.load(x + 2 * stride)) : f32x4.splat(0),
        left > 3 ? f32x4.mul(v128.load_splat<f32>(b, 12), v128.load(x + 3 * stride)) : f32x4.splat(0),
      );
    }
  }
  for (let i: usize = 0; i < <usize>tiles << 2; i++) store<f32>(p.solve + i * (SQUARE_ROW + 4), 1);
}

/**
 * 8 columns of v at a time: gradient on what is written, P^T dO + kc dS; through the solve it becomes Y, the gradient on beta * residual
 * through everything. dbeta = rowsum(Y * residual), dv = beta * Y. Fills `upstream` and `totalRows` (-beta * Y).
 */
function totals(p: Plan, b: Held, t: i32, n: i32, h: i32, dS: usize): void {
  const Kp = p.Kp, V = p.V, row = <usize>Kp << 2, rows = (n + 3) & ~3, valueRow = <usize>p.Vp << 2;
  const writes = panelAt(p, 0), Y = panelAt(p, 1), sums = panelAt(p, 2), dv = valueAt(p, b.dv, t, h);
  memory.fill(sums, 0, PANEL);
  let upstream = b.upstream;
  for (let col = 0; col < V; col += 8, dS += <usize>Kp << 5, upstream += 2 * PANEL) {
    const at = <usize>col << 2;
    packPanel(b.dORows, valueRow, C, p.Vp, col, upstream, C);
    for (let r: usize = 0; r < <usize>rows; r += 4)
      tileProduct(
        p.keyWrites + r * row, row, dS, Kp, p.scores + r * (SQUARE_ROW + 4), SQUARE_ROW, upstream + (r << 5), rows - <i32>r,
        writes + (r << 5), PANEL_ROW, false,
      );
    for (let r: usize = 0; r < <usize>rows; r += 4)
      tileProduct(p.solve + r * (SQUARE_ROW + 4), SQUARE_ROW, writes + (r << 5), rows - <i32>r, 0, 0, 0, 0, Y + (r << 5), PANEL_ROW, false);
    finishTotals(p, Y, b.residualRows + at, sums, b.totalRows + at, upstream + PANEL, rows);
    unpackPanel(Y, PANEL_ROW, dv, valueStride(p), n, V, col);
  }
  for (let r = 0, out = headAt(p, b.dbeta, t, h); r < n; r++, out += headStride(p)) store<f32>(out, hsum(v128.load(sums + (<usize>r << 4))));
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
    clearDiagonal(corner, SQUARE_ROW + 4, 4);
    clearDiagonal(corner + 4 * SQUARE_ROW, SQUARE_ROW + 4, 4);
  }
}

/**
 * Gradients on q, k and g of a chunk, 8 channels at a time: the parts through the states are products here, those inside the chunk
 * are added by finishReads and finishWrites, or finishHead. Value heads that share q and k add up.
 */
function keysBwd(p: Plan, b: Held, t: i32, n: i32, h: i32, before: usize, dSt: usize): void {
  const K = p.K, Vp = p.Vp, tiles = (n + 3) >> 2, row = <usize>Vp << 2, panel = <usize>Vp << 5, size = stateBytes(K, p.V);
  const reads = panelAt(p, 0), y = panelAt(p, 2), e = panelAt(p, 3), dq = panelAt(p, 4);
  const add = h % p.group != 0, stride = keyStride(p);
  if (p.gates != PER_CHANNEL) memory.fill(panelAt(p, 9), 0, PANEL);
  for (let col = 0; col < K; col += 8, before += panel, dSt += panel) {
    for (let a: usize = 0; a < <usize>tiles; a++) {
      const at = a * (row << 2);
      tileProduct(b.dORows + at, row, before, Vp, 0, 0, 0, 0, reads + a * 256, PANEL_ROW, false);
      tileProduct(b.totalRows + at, row, before, Vp, 0, 0, 0, 0, reads + a * 256 + 128, PANEL_ROW, false);
      tileProduct(b.writeRows + at, row, dSt, Vp, 0, 0, 0, 0, y + a * 128, PANEL_ROW, false);
    }
    if (p.gates == PER_CHANNEL) {
      finishReads(p, col, tiles);
      finishWrites(p, col, tiles);
      finishGates(e, p.decays + (<usize>col << 2), <usize>p.Kp << 2, n, before + size, dSt, Vp);
      unpackPanel(e, PANEL_ROW, gateAt(p, b.dg, t, h), gateStride(p), n, K, col);
    } else {
      finishHead(p, col, tiles);
      if (p.gates) addStates(panelAt(p, 9) + 256, before + size, dSt, Vp);
    }
    storePanel(dq, keyAt(p, b.dq, t, h), stride, n, K, col, add, panelAt(p, 5));
    storePanel(y, keyAt(p, b.dk, t, h), stride, n, K, col, add, panelAt(p, 5));
  }
  if (p.gates == PER_HEAD) headGates(panelAt(p, 9), p.head, gateAt(p, b.dg, t, h), gateStride(p), n);
}

/** Stores n rows of a panel in columns `col`.., or adds them to what lies there. */
function storePanel(src: usize, dst: usize, stride: usize, n: i32, width: i32, col: i32, add: bool, tmp: usize): void {
  if (add) {
    packPanel(dst, stride, n, width, col, tmp, n);
    for (let at: usize = 0; at < <usize>n << 5; at += 16) v128.store(src + at, f32x4.add(v128.load(src + at), v128.load(tmp + at)));
  }
  unpackPanel(src, PANEL_ROW, dst, stride, n, width, col);
}

/**
 * Completes what queries and keys read, in 8 rows for every block: dq from dO S^T, then dk from -total S^T. The stage holds the keys of
 * earlier blocks decayed to the end of the block before. dq * scale goes to panel 4, dk stays; e = q * dq + k * dk without the diagonal
 * term, which cancels in the gate's gradient.
 */
function finishReads(p: Plan, col: i32, tiles: i32): void {
  const row = <usize>p.Kp << 2, at = <usize>col << 2, stage = panelAt(p, 5);
  let q = p.qRows + at, k = p.kRows + at, d = p.decays + at, x = panelAt(p, 0), e = panelAt(p, 3), dq = panelAt(p, 4), dA = p.dScores;
  let before0 = f32x4.splat(1), before1 = before0;
  for (let a: usize = 0; a < <usize>tiles; a++) {
    if (a) {
      for (let r = x; r < x + 256; r += 32) {
        v128.store(r, f32x4.mul(v128.load(r), before0));
        v128.store(r, f32x4.mul(v128.load(r, 16), before1), 16);
      }
      tileProduct(dA, SQUARE_ROW, stage, <i32>a << 2, 0, 0, 0, 0, x, PANEL_ROW, true);
      tileProduct(dA + 4 * SQUARE_ROW, SQUARE_ROW, stage, <i32>a << 2, 0, 0, 0, 0, x + 128, PANEL_ROW, true);
    }
    const corner = dA + (a << 4);
    before0 = f32x4.mul(before0, readBlock(q, k, d, row, corner, x, e, dq, stage, a, p.scale));
    before1 = f32x4.mul(before1, readBlock(q + 16, k + 16, d + 16, row, corner, x + 16, e + 16, dq + 16, stage + 16, a, p.scale));
    q += row << 2;
    k += row << 2;
    d += row << 2;
    x += 256;
    e += 128;
    dq += 128;
    dA += 8 * SQUARE_ROW;
  }
}

/** One block of finishReads, 4 channels; returns the decay through the block. */
function readBlock(
  q: usize, k: usize, d: usize, row: usize, dA: usize, x: usize, e: usize, dq: usize, stage: usize, a: usize, scale: f32,
): v128 {
  const row2 = row << 1, row3 = row2 + row;
  strictReads(k, d, row, dA, x);
  strictReads(k, d, row, dA + 4 * SQUARE_ROW, x + 128);
  const k0 = v128.load(k), k1 = v128.load(k + row), k2 = v128.load(k + row2), k3 = v128.load(k + row3), f = f32x4.splat(scale);
  let y = v128.load(x);
  v128.store(e, madd(v128.load(q), y, f32x4.mul(k0, v128.load(x, 128))));
  v128.store(dq, f32x4.mul(f, madd(v128.load_splat<f32>(dA), k0, y)));
  y = v128.load(x, 32);
  v128.store(e, madd(v128.load(q + row), y, f32x4.mul(k1, v128.load(x, 160))), 32);
  v128.store(dq, f32x4.mul(f, madd(v128.load_splat<f32>(dA + SQUARE_ROW, 4), k1, y)), 32);
  y = v128.load(x, 64);
  v128.store(e, madd(v128.load(q + row2), y, f32x4.mul(k2, v128.load(x, 192))), 64);
  v128.store(dq, f32x4.mul(f, madd(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 8), k2, y)), 64);
  y = v128.load(x, 96);
  v128.store(e, madd(v128.load(q + row3), y, f32x4.mul(k3, v128.load(x, 224))), 96);
  v128.store(dq, f32x4.mul(f, madd(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 12), k3, y)), 96);
  // The next blocks see these keys, and the earlier ones, decayed to the end of this block.
  const d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row3), u1 = f32x4.mul(d2, d3), u0 = f32x4.mul(d1, u1);
  const through = f32x4.mul(v128.load(d), u0), own = stage + (a << 7);
  for (let r = stage; r < own; r += 32) v128.store(r, f32x4.mul(v128.load(r), through));
  v128.store(own, f32x4.mul(k0, u0));
  v128.store(own, f32x4.mul(k1, u1), 32);
  v128.store(own, f32x4.mul(k2, d3), 64);
  v128.store(own, k3, 96);
  return through;
}

/** x_i = x_i * decay 0..i + sum over j < i of dA_ij k_j * decay j+1..i, for the 4 rows of a block. */
// @ts-ignore: decorator
@inline
function strictReads(k: usize, d: usize, row: usize, dA: usize, x: usize): void {
  const row2 = row << 1, d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row2 + row);
  const k0 = v128.load(k), k1 = v128.load(k + row);
  let p = v128.load(d);
  v128.store(x, f32x4.mul(v128.load(x), p));
  p = f32x4.mul(p, d1);
  let t = f32x4.mul(v128.load_splat<f32>(dA + SQUARE_ROW), k0);
  v128.store(x, madd(d1, t, f32x4.mul(v128.load(x, 32), p)), 32);
  p = f32x4.mul(p, d2);
  t = f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW), k0);
  t = madd(d1, t, f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 4), k1));
  v128.store(x, madd(d2, t, f32x4.mul(v128.load(x, 64), p)), 64);
  p = f32x4.mul(p, d3);
  t = f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW), k0);
  t = madd(d1, t, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 4), k1));
  t = madd(d2, t, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 8), v128.load(k + row2)));
  v128.store(x, madd(d3, t, f32x4.mul(v128.load(x, 96), p)), 96);
}

/**
 * Completes dk in panel y, which holds (beta * residual) dS^T, from the last block to the first, and adds what finishReads left; e loses
 * k times the part of y. The stage holds later queries and keys, 8 rows for every block. The mirror image of finishReads.
 */
function finishWrites(p: Plan, col: i32, tiles: i32): void {
  const row = <usize>p.Kp << 2, at = <usize>col << 2, stage = panelAt(p, 6), end = stage + (<usize>tiles << 8);
  let after0 = f32x4.splat(1), after1 = after0;
  for (let c = tiles - 1; c >= 0; c--) {
    const i = <usize>c, rows = at + i * (row << 2), panel = i << 7, corner = p.dScores + i * (8 * SQUARE_ROW + 16);
    const q = p.qRows + rows, k = p.kRows + rows, d = p.decays + rows, own = stage + (i << 8);
    const y = panelAt(p, 2) + panel, e = panelAt(p, 3) + panel, reads = panelAt(p, 0) + (i << 8) + 128;
    if (c < tiles - 1) {
      for (let r = y; r < y + 128; r += 32) {
        v128.store(r, f32x4.mul(v128.load(r), after0));
        v128.store(r, f32x4.mul(v128.load(r, 16), after1), 16);
      }
      panelUpdate(corner + 8 * SQUARE_ROW, SQUARE_ROW, own + 256, (tiles - 1 - c) << 3, y, y, 4, 0, 0, 0, 0);
    }
    after0 = f32x4.mul(after0, writeBlock(q, k, d, row, corner, y, e, reads, own, end));
    after1 = f32x4.mul(after1, writeBlock(q + 16, k + 16, d + 16, row, corner, y + 16, e + 16, reads + 16, own + 16, end));
  }
}

/** One block of finishWrites, 4 channels; returns the decay through the block. */
function writeBlock(
  q: usize, k: usize, d: usize, row: usize, dA: usize, y: usize, e: usize, reads: usize, own: usize, end: usize,
): v128 {
  const row2 = row << 1, row3 = row2 + row, dB = dA + 4 * SQUARE_ROW;
  const d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row3), u1 = f32x4.mul(d2, d3), u0 = f32x4.mul(d1, u1);
  const q3 = v128.load(q + row3), k3 = v128.load(k + row3), q2 = v128.load(q + row2), k2 = v128.load(k + row2);
  const y3 = v128.load(y, 96);
  let t = madd(v128.load_splat<f32>(dB + 3 * SQUARE_ROW, 8), k3, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 8), q3));
  const y2 = madd(d3, t, f32x4.mul(v128.load(y, 64), d3));
  t = madd(v128.load_splat<f32>(dB + 3 * SQUARE_ROW, 4), k3, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 4), q3));
  t = madd(d3, t, f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 4), q2));
  t = madd(v128.load_splat<f32>(dB + 2 * SQUARE_ROW, 4), k2, t);
  const y1 = madd(d2, t, f32x4.mul(v128.load(y, 32), u1));
  t = madd(v128.load_splat<f32>(dB + 3 * SQUARE_ROW), k3, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW), q3));
  t = madd(d3, t, f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW), q2));
  t = madd(v128.load_splat<f32>(dB + 2 * SQUARE_ROW), k2, t);
  const q1 = v128.load(q + row), k1 = v128.load(k + row);
  t = madd(d2, t, f32x4.mul(v128.load_splat<f32>(dA + SQUARE_ROW), q1));
  t = madd(v128.load_splat<f32>(dB + SQUARE_ROW), k1, t);
  const y0 = madd(d1, t, f32x4.mul(v128.load(y), u0));
  const q0 = v128.load(q), k0 = v128.load(k);
  v128.store(e, f32x4.sub(v128.load(e), f32x4.mul(k0, y0)));
  v128.store(e, f32x4.sub(v128.load(e, 32), f32x4.mul(k1, y1)), 32);
  v128.store(e, f32x4.sub(v128.load(e, 64), f32x4.mul(k2, y2)), 64);
  v128.store(e, f32x4.sub(v128.load(e, 96), f32x4.mul(k3, y3)), 96);
  v128.store(y, madd(v128.load_splat<f32>(dA), q0, f32x4.add(y0, v128.load(reads))));
  v128.store(y, madd(v128.load_splat<f32>(dA + SQUARE_ROW, 4), q1, f32x4.add(y1, v128.load(reads, 32))), 32);
  v128.store(y, madd(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 8), q2, f32x4.add(y2, v128.load(reads, 64))), 64);
  v128.store(y, madd(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 12), q3, f32x4.add(y3, v128.load(reads, 96))), 96);
  // Earlier blocks see these rows, and the later ones, decayed from the start of this block.
  let p = v128.load(d);
  v128.store(own, f32x4.mul(q0, p));
  v128.store(own, f32x4.mul(k0, p), 128);
  p = f32x4.mul(p, d1);
  v128.store(own, f32x4.mul(q1, p), 32);
  v128.store(own, f32x4.mul(k1, p), 160);
  p = f32x4.mul(p, d2);
  v128.store(own, f32x4.mul(q2, p), 64);
  v128.store(own, f32x4.mul(k2, p), 192);
  p = f32x4.mul(p, d3);
  v128.store(own, f32x4.mul(q3, p), 96);
  v128.store(own, f32x4.mul(k3, p), 224);
  for (let r = own + 256; r < end; r += 32) v128.store(r, f32x4.mul(v128.load(r), p));
  return p;
}

/** Gates per head, or none: completes dq (panel 4) and dk (panel y) in 8 channels; adds e, summed over them, to the sums of panel 9. */
function finishHead(p: Plan, col: i32, tiles: i32): void {
  const row = <usize>p.Kp << 2, at = <usize>col << 2, keys = panelAt(p, 5), both = panelAt(p, 6), y = panelAt(p, 2);
  let q = p.qRows + at, k = p.kRows + at;
  packPanel(k, row, C, 8, 0, keys, C);
  for (let a: usize = 0; a < <usize>tiles; a++) {
    const dA = p.dScores + a * (8 * SQUARE_ROW), x = panelAt(p, 0) + a * 256, block = a * (row << 2);
    scale4(x, p.head + 64 + (a << 4));
    scale4(x + 128, p.head + 64 + (a << 4));
    tileProduct(dA, SQUARE_ROW, keys, <i32>(a + 1) << 2, 0, 0, 0, 0, x, PANEL_ROW, true);
    tileProduct(dA + 4 * SQUARE_ROW, SQUARE_ROW, keys, <i32>(a + 1) << 2, 0, 0, 0, 0, x + 128, PANEL_ROW, true);
    packPanel(q + block, row, 4, 8, 0, both + a * 256, 4);
    packPanel(k + block, row, 4, 8, 0, both + a * 256 + 128, 4);
  }
  panelUpdate(p.dScores, SQUARE_ROW, both, tiles << 3, y, y, tiles << 2, p.head + 128, 0, 0, 0);
  const f = f32x4.splat(p.scale);
  for (let r: usize = 0; r < <usize>tiles << 2; r++, q += row, k += row) {
    const d = v128.load_splat<f32>(p.head + 192 + (r << 2)), sums = panelAt(p, 9) + (r << 4);
    const x = panelAt(p, 0) + ((r >> 2) << 8) + ((r & 3) << 5), dy = y + (r << 5), dq = panelAt(p, 4) + (r << 5);
    let sum = v128.load(sums);
    for (let c: usize = 0; c < 32; c += 16) {
      const qr = v128.load(q + c), kr = v128.load(k + c), read = v128.load(x + c), keyRead = v128.load(x + c, 128), write = v128.load(dy + c);
      sum = madd(kr, f32x4.sub(keyRead, write), madd(qr, read, sum));
      v128.store(dq + c, f32x4.mul(f, madd(d, kr, read)));
      v128.store(dy + c, madd(d, qr, f32x4.add(keyRead, write)));
    }
    v128.store(sums, sum);
  }
}

/** Multiplies each of 4 rows of a panel by its factor. */
// @ts-ignore: decorator
@inline
function scale4(x: usize, factors: usize): void {
  for (const end = x + 128; x < end; x += 32, factors += 4) {
    const f = v128.load_splat<f32>(factors);
    v128.store(x, f32x4.mul(f, v128.load(x)));
    v128.store(x, f32x4.mul(f, v128.load(x, 16)), 16);
  }
}

/** Adds the sum of S * dS over a panel of the transposed states to four partial sums. */
function addStates(sums: usize, state: usize, dSt: usize, Vp: i32): void {
  let sum0 = v128.load(sums), sum1 = f32x4.splat(0);
  for (const end = state + (<usize>Vp << 5); state < end; state += 32, dSt += 32) {
    sum0 = madd(v128.load(state), v128.load(dSt), sum0);
    sum1 = madd(v128.load(state, 16), v128.load(dSt, 16), sum1);
  }
  v128.store(sums, f32x4.add(sum0, sum1));
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
