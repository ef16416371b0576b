/**
 * The generalised delta rule, forward and backward, chunk by chunk on the tensors where they lie (derivation: README.md).
 *
 * A chunk is 16 tokens in 4 blocks of 4, with decays as wasm/lib/chunk.as.ts makes them. A token reads twice, with q and with a, and
 * writes twice, v at k and z at b. So everything of a chunk has 32 rows, in pairs of blocks: 4 rows of q (or k, v, dO), then 4 rows of a
 * (or b, z, dz) of the same 4 tokens. Scores of all reads with all writes are one [32, 32] matrix, and what a block sees of the earlier
 * ones is contiguous: one product does for both.
 *
 * Names: Kp, Vp = K, V padded to multiples of 8. Rows past the end of a sequence are 0, their gates too. "Panel": 8 columns, 32
 * bytes a row (wasm/lib/product.as.ts). "Pair": a pair of blocks. z = S^T a, what a reads.
 */
import { diagonalBlock, stretchKeys, stretchQueries } from '../wasm/lib/blocks.as';
import { C, channelDecays, decayToEnd, fetch, finishGates, innerSegments, PANEL, SEGMENT, startState, stateBytes } from '../wasm/lib/chunk.as';
import { exp1, madd } from '../wasm/lib/math.as';
import { PANEL_ROW, panelUpdate, rowsTimesRows, storeTransposed, sums4, tileProduct } from '../wasm/lib/product.as';
import { packMatrix, packPanel, packRows, pad8, transposePanels, unpackMatrix, unpackPanel } from '../wasm/lib/rows.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** Bytes of a row of the [32, 32] scores, and of the scores. */
// @ts-ignore: decorator
@inline
const SCORE_ROW: usize = 128;
// @ts-ignore: decorator
@inline
const SCORES: usize = 4096;
/** From a pair to the next one: down the diagonal of the scores, and down a panel. */
// @ts-ignore: decorator
@inline
const CORNER: usize = 8 * SCORE_ROW + 32;
// @ts-ignore: decorator
@inline
const PANEL_PAIR: usize = 256;

/** Sizes, tensors and scratch of a call. It lies at the start of the scratch memory. */
// @ts-ignore: decorator
@unmanaged
class Plan {
  H: i32;
  K: i32;
  V: i32;
  Kp: i32;
  Vp: i32;
  scale: f32;
  /** From token to token of q, k, a, b, g and of v, z, o, in bytes. */
  keys: usize;
  values: usize;
  // Tensors; see dplrFwd and dplrBwd.
  q: usize;
  k: usize;
  v: usize;
  a: usize;
  b: usize;
  g: usize;
  initial: usize;
  z: usize;
  starts: usize;
  // [32, 32]: scores, and (backward) their transpose and their gradient.
  scores: usize;
  transposed: usize;
  dScores: usize;
  panels: usize;
  // [16, Kp].
  qRows: usize;
  kRows: usize;
  aRows: usize;
  bRows: usize;
  decays: usize;
  /** [32, Kp]: q and a, decayed from the chunk's start; k and b, decayed to its end. */
  reads: usize;
  writes: usize;
  chunkDecay: usize;
  /** What only one of the kernels needs. */
  rest: usize;
}

/** Bytes of a Plan, rounded up. */
// @ts-ignore: decorator
@inline
const PLAN_BYTES: usize = 256;
/** Panels of 16 rows (numbers of panelAt). */
// @ts-ignore: decorator
@inline
const PANELS: usize = 13;

/** Bytes of the scratch of a chunk. */
function chunkBytes(Kp: i32): usize {
  return PLAN_BYTES + 3 * SCORES + PANELS * PANEL + 9 * (<usize>Kp << 6) + (<usize>Kp << 2);
}

function planOf(
  s: usize, q: usize, k: usize, v: usize, a: usize, b: usize, g: usize, initial: usize, z: usize, starts: usize,
  H: i32, K: i32, V: i32, scale: f32,
): Plan {
  const p = changetype<Plan>(s), Kp = pad8(K), rows = <usize>Kp << 6;
  p.H = H;
  p.K = K;
  p.V = V;
  p.Kp = Kp;
  p.Vp = pad8(V);
  p.scale = scale;
  p.keys = <usize>(H * K) << 2;
  p.values = <usize>(H * V) << 2;
  p.q = q;
  p.k = k;
  p.v = v;
  p.a = a;
  p.b = b;
  p.g = g;
  p.initial = initial;
  p.z = z;
  p.starts = starts;
  p.scores = s + PLAN_BYTES;
  p.transposed = p.scores + SCORES;
  p.dScores = p.transposed + SCORES;
  p.panels = p.dScores + SCORES;
  p.qRows = p.panels + PANELS * PANEL;
  p.kRows = p.qRows + rows;
  p.aRows = p.kRows + rows;
  p.bRows = p.aRows + rows;
  p.decays = p.bRows + rows;
  p.reads = p.decays + rows;
  p.writes = p.reads + 2 * rows;
  p.chunkDecay = p.writes + 2 * rows;
  p.rest = p.chunkDecay + (<usize>Kp << 2);
  return p;
}

/** Where a tensor of keys holds token t of head h. */
// @ts-ignore: decorator
@inline
function keyAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * p.keys + (<usize>(h * p.K) << 2); }
// @ts-ignore: decorator
@inline
function valueAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * p.values + (<usize>(h * p.V) << 2); }
// @ts-ignore: decorator
@inline
function panelAt(p: Plan, i: usize): usize { return p.panels + i * PANEL; }
/** Bytes of the states of all heads, dense. */
// @ts-ignore: decorator
@inline
function denseStates(p: Plan): usize { return <usize>p.H * <usize>(p.K * p.V) << 2; }

// ---- A chunk ------------------------------------------------------------------------------------------------------------------

/** Fetches what a chunk's change of the state is made of, z where it is known. */
function fetchWrites(p: Plan, t: i32, n: i32, h: i32, z: bool): void {
  const sink = panelAt(p, 0);
  fetch(keyAt(p, p.k, t, h), p.keys, n, p.K, sink);
  fetch(keyAt(p, p.b, t, h), p.keys, n, p.K, sink);
  fetch(keyAt(p, p.g, t, h), p.keys, n, p.K, sink);
  fetch(valueAt(p, p.v, t, h), p.values, n, p.V, sink);
  if (z) fetch(valueAt(p, p.z, t, h), p.values, n, p.V, sink);
}

/** q (times scale), k, a, b and the decays of a chunk. */
function readChunk(p: Plan, t: i32, n: i32, h: i32): void {
  fetch(keyAt(p, p.q, t, h), p.keys, n, p.K, panelAt(p, 0));
  fetch(keyAt(p, p.a, t, h), p.keys, n, p.K, panelAt(p, 0));
  packRows(keyAt(p, p.q, t, h), p.keys, n, p.K, p.qRows, C, p.scale);
  packRows(keyAt(p, p.k, t, h), p.keys, n, p.K, p.kRows, C, 1);
  packRows(keyAt(p, p.a, t, h), p.keys, n, p.K, p.aRows, C, 1);
  packRows(keyAt(p, p.b, t, h), p.keys, n, p.K, p.bRows, C, 1);
  channelDecays(keyAt(p, p.g, t, h), p.keys, n, p.K, p.decays, p.chunkDecay);
}

/**
 * After readChunk: reads, writes, and the scores of all reads with the writes they see: q with k and b up to its own token, a with those of
 * earlier tokens. Only the first `tiles` pairs, and of the scores only what is not above the diagonal of pairs.
 */
function prepare(p: Plan, tiles: i32): void {
  const row = <usize>p.Kp << 2, block = row << 2, Kp = p.Kp, decays = p.decays;
  for (let c: usize = 0; c < <usize>tiles; c++) {
    const at = c * block, own = p.scores + c * CORNER, rows = p.scores + c * (8 * SCORE_ROW), below = rows + 4 * SCORE_ROW;
    const q = p.reads + 2 * at, a = q + block, k = p.writes + 2 * at, b = k + block;
    diagonalBlock(p.qRows + at, p.kRows + at, decays + at, q, k, row, own, SCORE_ROW, false);
    diagonalBlock(p.qRows + at, p.bRows + at, decays + at, q, b, row, own + 16, SCORE_ROW, false);
    strictBlock(p.aRows + at, p.kRows + at, decays + at, a, row, own + 4 * SCORE_ROW);
    strictBlock(p.aRows + at, p.bRows + at, decays + at, a, row, own + 4 * SCORE_ROW + 16);
    if (!c) continue;
    // Here reads of pair c start at its own beginning, and the writes of earlier pairs end there.
    rowsTimesRows(q, row, p.writes, row, Kp, rows, SCORE_ROW, <i32>c << 3);
    rowsTimesRows(a, row, p.writes, row, Kp, below, SCORE_ROW, <i32>c << 3);
    stretchQueries(q, decays, row, c);
    stretchQueries(a, decays, row, c);
    stretchKeys(p.writes, c << 3, decays + at, row);
  }
}

/**
 * Scores of a block's a with the writes of its earlier tokens (4 x 4, strictly lower triangle), a decayed from the block's start. It reads
 * before its own token's decay.
 */
function strictBlock(a: usize, k: usize, decay: usize, reads: usize, row: usize, scores: usize): void {
  const zero = f32x4.splat(0), row2 = row << 1, row3 = row2 + row;
  let s10 = zero, s20 = zero, s21 = zero, s30 = zero, s31 = zero, s32 = zero;
  for (const end = a + row; a < end; a += 16, k += 16, decay += 16, reads += 16) {
    const a1 = v128.load(a + row), a2 = v128.load(a + row2), a3 = v128.load(a + row3);
    const d1 = v128.load(decay + row), d2 = v128.load(decay + row2);
    let w = v128.load(k);
    s10 = madd(a1, w, s10);
    w = f32x4.mul(w, d1);
    s20 = madd(a2, w, s20);
    s30 = madd(a3, f32x4.mul(w, d2), s30);
    w = v128.load(k + row);
    s21 = madd(a2, w, s21);
    s31 = madd(a3, f32x4.mul(w, d2), s31);
    s32 = madd(a3, v128.load(k + row2), s32);
    v128.store(reads, v128.load(a));
    let d = v128.load(decay);
    v128.store(reads + row, f32x4.mul(a1, d));
    d = f32x4.mul(d, d1);
    v128.store(reads + row2, f32x4.mul(a2, d));
    v128.store(reads + row3, f32x4.mul(a3, f32x4.mul(d, d2)));
  }
  v128.store(scores, zero);
  v128.store(scores, sums4(s10, zero, zero, zero), SCORE_ROW);
  v128.store(scores, sums4(s20, s21, zero, zero), 2 * SCORE_ROW);
  v128.store(scores, sums4(s30, s31, s32, zero), 3 * SCORE_ROW);
}

// ---- Forward ------------------------------------------------------------------------------------------------------------------

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
 * and final are [N, H, K, V]. For the backward pass it writes z [*, H, V] and `starts` (see dplrStarts; sequence after sequence).
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

/** A sequence of one token, head by head. */
function tokenFwd(p: Plan, t: i32, o: usize, final: usize): void {
  const state = <usize>(p.K * p.V) << 2;
  for (let h = 0; h < p.H; h++) {
    const at = <usize>h * state, initial = p.initial ? p.initial + at : 0, z = valueAt(p, p.z, t, h);
    memory.fill(z, 0, <usize>p.V << 2);
    if (initial) readState(initial, keyAt(p, p.a, t, h), z, p.K, p.V);
    step(p, t, h, initial, z, valueAt(p, o, t, h), final + at);
  }
}

/** z = z + S^T a. */
function readState(S: usize, a: usize, z: usize, K: i32, V: i32): void {
  const full = <usize>(V & ~3) << 2, tail = V & 3;
  for (let i = 0; i < K; i++, a += 4, S += <usize>V << 2) {
    const x = v128.load_splat<f32>(a);
    for (let at: usize = 0; at < full; at += 16) v128.store(z + at, madd(x, v128.load(S + at), v128.load(z + at)));
    if (tail) storeN(z + full, madd(x, loadN(S + full, tail), loadN(z + full, tail)), tail);
  }
}

/** One token: S = exp(g) S + b z^T + k v^T, o = scale * S^T q, row by row. */
function step(p: Plan, t: i32, h: i32, initial: usize, z: usize, o: usize, final: usize): void {
  const V = p.V, full = <usize>(V & ~3) << 2, tail = V & 3, v = valueAt(p, p.v, t, h);
  let at = keyAt(p, 0, t, h);
  memory.fill(o, 0, <usize>V << 2);
  for (let i = 0; i < p.K; i++, at += 4, final += <usize>V << 2) {
    const decay = initial ? f32x4.splat(exp1(load<f32>(p.g + at))) : f32x4.splat(0);
    const k = v128.load_splat<f32>(p.k + at), b = v128.load_splat<f32>(p.b + at), q = f32x4.splat(p.scale * load<f32>(p.q + at));
    for (let c: usize = 0; c < full; c += 16) stepCell(initial, v, z, o, final, decay, k, b, q, c, 4);
    if (tail) stepCell(initial, v, z, o, final, decay, k, b, q, full, tail);
    if (initial) initial += <usize>V << 2;
  }
}

// @ts-ignore: decorator
@inline
function stepCell(
  initial: usize, v: usize, z: usize, o: usize, final: usize, decay: v128, k: v128, b: v128, q: v128, c: usize, lanes: i32,
): void {
  let x = f32x4.mul(k, loadN(v + c, lanes));
  if (initial) x = madd(decay, loadN(initial + c, lanes), madd(b, loadN(z + c, lanes), x));
  storeN(final + c, x, lanes);
  storeN(o + c, madd(q, x, loadN(o + c, lanes)), lanes);
}

function sequenceFwd(p: Plan, first: i32, T: i32, o: usize, final: usize): void {
  const K = p.K, V = p.V, heads = <usize>p.H, dense = <usize>(K * V) << 2, size = stateBytes(K, V), states = p.rest;
  for (let h: usize = 0; h < heads; h++) packMatrix(p.initial ? p.initial + h * dense : 0, K, V, states + h * size);
  for (let t = 0; t < T; t += SEGMENT) {
    if (t) {
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
  fetch(valueAt(p, p.z, t, h), p.values, n, p.V, panelAt(p, 0));
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
    unpackPanel(mine, PANEL_ROW, z, stride, count, p.V, col);
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

// ---- Backward -----------------------------------------------------------------------------------------------------------------
// dz is the gradient on z. States are held transposed ([V, K] in panels of K): their only use here is (dO, dz) S^T and rowsum(S * dS).
// The gradient on the state is held both ways: dS for dv and dz, dS^T for dk and db.

/** What only the backward pass needs. Rows and panels in pairs. */
// @ts-ignore: decorator
@unmanaged
class Back {
  dO: usize;
  dq: usize;
  dk: usize;
  dv: usize;
  da: usize;
  db: usize;
  dg: usize;
  /** [32, Vp]: v and z. */
  values: usize;
  /** [32, Vp]: dO and dz; the same in panels of 8 columns. */
  upstream: usize;
  upstreamPanels: usize;
  /** dS of every head, then dS^T of every head. */
  dS: usize;
  dSt: usize;
  /** The states before the chunks of a segment, and after the last. */
  held: usize;
}

// @ts-ignore: decorator
@inline
const BACK_BYTES: usize = 64;

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

// Panels of keysBwd: gradients through the states of reads and of writes, in pairs (2 panels each); reads or writes of other pairs (2);
// then the gradients themselves; e, what the gates' gradient is summed from, with a row before the first.
// @ts-ignore: decorator
@inline
function readSumsAt(p: Plan): usize { return panelAt(p, 0); }
// @ts-ignore: decorator
@inline
function writeSumsAt(p: Plan): usize { return panelAt(p, 2); }
// @ts-ignore: decorator
@inline
function stageAt(p: Plan): usize { return panelAt(p, 4); }
// @ts-ignore: decorator
@inline
function dqAt(p: Plan): usize { return panelAt(p, 6); }
// @ts-ignore: decorator
@inline
function daAt(p: Plan): usize { return panelAt(p, 7); }
// @ts-ignore: decorator
@inline
function dkAt(p: Plan): usize { return panelAt(p, 8); }
// @ts-ignore: decorator
@inline
function dbAt(p: Plan): usize { return panelAt(p, 9); }
// @ts-ignore: decorator
@inline
function eAt(p: Plan): usize { return panelAt(p, 10) + PANEL_ROW; }

/** Gradients on q, a, k, b and g of a chunk, 8 channels at a time. */
function keysBwd(p: Plan, back: Back, t: i32, n: i32, h: i32, before: usize, dSt: usize): void {
  const Vp = p.Vp, K = p.K, row = <usize>Vp << 2, tiles = (n + 3) >> 2, panel = <usize>Vp << 5, size = stateBytes(K, p.V);
  for (let r: usize = 0; r < <usize>tiles << 1; r++)
    rowsTimesRows(back.upstream + r * (row << 2), row, back.values, row, Vp, p.dScores + r * (4 * SCORE_ROW), SCORE_ROW, (<i32>(r >> 1) + 1) << 3);
  const at = keyAt(p, 0, t, h), stride = p.keys;
  for (let col = 0; col < K; col += 8, before += panel, dSt += panel) {
    for (let r: usize = 0; r < <usize>tiles << 1; r++) {
      tileProduct(back.upstream + r * (row << 2), row, before, Vp, 0, 0, 0, 0, readSumsAt(p) + (r << 7), PANEL_ROW, false);
      tileProduct(back.values + r * (row << 2), row, dSt, Vp, 0, 0, 0, 0, writeSumsAt(p) + (r << 7), PANEL_ROW, false);
    }
    finishReads(p, col, tiles);
    finishWrites(p, col, tiles);
    finishGates(eAt(p), p.decays + (<usize>col << 2), <usize>p.Kp << 2, n, before + size, dSt, Vp);
    unpackPanel(dqAt(p), PANEL_ROW, back.dq + at, stride, n, K, col);
    unpackPanel(daAt(p), PANEL_ROW, back.da + at, stride, n, K, col);
    unpackPanel(dkAt(p), PANEL_ROW, back.dk + at, stride, n, K, col);
    unpackPanel(dbAt(p), PANEL_ROW, back.db + at, stride, n, K, col);
    unpackPanel(eAt(p), PANEL_ROW, back.dg + at, stride, n, K, col);
  }
}

/**
 * dq and da from (dO, dz) S^T, pair after pair. The stage holds the writes of earlier pairs, decayed to the end of the pair before. e gets
 * q * dq without the diagonal term, which cancels in the gate's gradient, and a * da of the next token, because a reads before its
 * own token's decay.
 */
function finishReads(p: Plan, col: i32, tiles: i32): void {
  const row = <usize>p.Kp << 2, stage = stageAt(p);
  let before0 = f32x4.splat(1), before1 = before0;
  for (let c: usize = 0; c < <usize>tiles; c++) {
    const x = readSumsAt(p) + c * PANEL_PAIR, dA = p.dScores + c * (8 * SCORE_ROW), at = (<usize>col << 2) + c * (row << 2);
    if (c) {
      scalePair(x, before0, before1);
      tileProduct(dA, SCORE_ROW, stage, <i32>c << 3, 0, 0, 0, 0, x, PANEL_ROW, true);
      tileProduct(dA + 4 * SCORE_ROW, SCORE_ROW, stage, <i32>c << 3, 0, 0, 0, 0, x + 128, PANEL_ROW, true);
    }
    before0 = f32x4.mul(before0, readBlock(p, at, dA + (c << 5), c, 0));
    before1 = f32x4.mul(before1, readBlock(p, at + 16, dA + (c << 5), c, 16));
  }
}

/** Multiplies the columns of a pair in a panel. */
// @ts-ignore: decorator
@inline
function scalePair(x: usize, f0: v128, f1: v128): void {
  for (const end = x + PANEL_PAIR; x < end; x += PANEL_ROW) {
    v128.store(x, f32x4.mul(v128.load(x), f0));
    v128.store(x, f32x4.mul(v128.load(x, 16), f1), 16);
  }
}

/** One pair of finishReads, 4 channels, `at` bytes into the rows and `half` into the panels; returns the decay through it. */
function readBlock(p: Plan, at: usize, dA: usize, c: usize, half: usize): v128 {
  const row = <usize>p.Kp << 2, row2 = row << 1, row3 = row2 + row, dB = dA + 4 * SCORE_ROW;
  const d = p.decays + at, k = p.kRows + at, b = p.bRows + at, q = p.qRows + at, a = p.aRows + at;
  const x = readSumsAt(p) + c * PANEL_PAIR + half, y = x + 128, out = (c << 7) + half;
  const dq = dqAt(p) + out, da = daAt(p) + out, e = eAt(p) + out, scale = f32x4.splat(p.scale);
  const d0 = v128.load(d), d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row3);
  const k0 = v128.load(k), k1 = v128.load(k + row), k2 = v128.load(k + row2), k3 = v128.load(k + row3);
  const b0 = v128.load(b), b1 = v128.load(b + row), b2 = v128.load(b + row2), b3 = v128.load(b + row3);

  let r = v128.load(y);
  v128.store(da, r);
  if (c) v128.store(e - PANEL_ROW, madd(v128.load(a), r, v128.load(e - PANEL_ROW)));
  r = f32x4.mul(d0, v128.load(x));
  let own = seen(dA, 0, k0, b0);
  v128.store(dq, f32x4.mul(scale, f32x4.add(r, own)));
  let sum = f32x4.mul(v128.load(q), r);

  r = madd(d0, v128.load(y, 32), seen(dB + SCORE_ROW, 0, k0, b0));
  v128.store(da, r, 32);
  v128.store(e, madd(v128.load(a + row), r, sum));
  r = f32x4.mul(d1, madd(d0, v128.load(x, 32), seen(dA + SCORE_ROW, 0, k0, b0)));
  own = seen(dA + SCORE_ROW, 4, k1, b1);
  v128.store(dq, f32x4.mul(scale, f32x4.add(r, own)), 32);
  sum = f32x4.mul(v128.load(q + row), r);

  r = madd(d0, v128.load(y, 64), seen(dB + 2 * SCORE_ROW, 0, k0, b0));
  r = madd(d1, r, seen(dB + 2 * SCORE_ROW, 4, k1, b1));
  v128.store(da, r, 64);
  v128.store(e, madd(v128.load(a + row2), r, sum), 32);
  r = madd(d0, v128.load(x, 64), seen(dA + 2 * SCORE_ROW, 0, k0, b0));
  r = f32x4.mul(d2, madd(d1, r, seen(dA + 2 * SCORE_ROW, 4, k1, b1)));
  own = seen(dA + 2 * SCORE_ROW, 8, k2, b2);
  v128.store(dq, f32x4.mul(scale, f32x4.add(r, own)), 64);
  sum = f32x4.mul(v128.load(q + row2), r);

  r = madd(d0, v128.load(y, 96), seen(dB + 3 * SCORE_ROW, 0, k0, b0));
  r = madd(d1, r, seen(dB + 3 * SCORE_ROW, 4, k1, b1));
  r = madd(d2, r, seen(dB + 3 * SCORE_ROW, 8, k2, b2));
  v128.store(da, r, 96);
  v128.store(e, madd(v128.load(a + row3), r, sum), 64);
  r = madd(d0, v128.load(x, 96), seen(dA + 3 * SCORE_ROW, 0, k0, b0));
  r = madd(d1, r, seen(dA + 3 * SCORE_ROW, 4, k1, b1));
  r = f32x4.mul(d3, madd(d2, r, seen(dA + 3 * SCORE_ROW, 8, k2, b2)));
  own = seen(dA + 3 * SCORE_ROW, 12, k3, b3);
  v128.store(dq, f32x4.mul(scale, f32x4.add(r, own)), 96);
  v128.store(e, f32x4.mul(v128.load(q + row3), r), 96);

  // The next pairs see these writes, and the earlier ones, decayed to the end of this pair.
  const u1 = f32x4.mul(d2, d3), u0 = f32x4.mul(d1, u1), through = f32x4.mul(d0, u0), stage = stageAt(p) + half, mine = stage + c * PANEL_PAIR;
  for (let s = stage; s < mine; s += PANEL_ROW) v128.store(s, f32x4.mul(v128.load(s), through));
  v128.store(mine, f32x4.mul(k0, u0));
  v128.store(mine, f32x4.mul(k1, u1), 32);
  v128.store(mine, f32x4.mul(k2, d3), 64);
  v128.store(mine, k3, 96);
  v128.store(mine, f32x4.mul(b0, u0), 128);
  v128.store(mine, f32x4.mul(b1, u1), 160);
  v128.store(mine, f32x4.mul(b2, d3), 192);
  v128.store(mine, b3, 224);
  return through;
}

/** What a read gets of the two writes of a token: their score gradients are 16 bytes apart, `token` bytes into the row. */
// @ts-ignore: decorator
@inline
function seen(dRow: usize, token: usize, k: v128, b: v128): v128 {
  return madd(v128.load_splat<f32>(dRow + token), k, f32x4.mul(v128.load_splat<f32>(dRow + token, 16), b));
}

/** dk and db from (v, z) dS^T, from the last pair to the first; e loses k * dk and b * db. The mirror image of finishReads. */
function finishWrites(p: Plan, col: i32, tiles: i32): void {
  const row = <usize>p.Kp << 2;
  let after0 = f32x4.splat(1), after1 = after0;
  for (let c = tiles - 1; c >= 0; c--) {
    const i = <usize>c, y = writeSumsAt(p) + i * PANEL_PAIR, own = p.dScores + i * CORNER, at = (<usize>col << 2) + i * (row << 2);
    if (c < tiles - 1) {
      scalePair(y, after0, after1);
      const later = stageAt(p) + (i + 1) * PANEL_PAIR;
      panelUpdate(own + 8 * SCORE_ROW, SCORE_ROW, later, (tiles - 1 - c) << 3, y, y, 8, 0, 0, 0, 0);
    }
    after0 = f32x4.mul(after0, writeBlock(p, at, own, i, tiles, 0));
    after1 = f32x4.mul(after1, writeBlock(p, at + 16, own, i, tiles, 16));
  }
}

/** One pair of finishWrites, 4 channels; returns the decay through it. */
function writeBlock(p: Plan, at: usize, dA: usize, c: usize, tiles: i32, half: usize): v128 {
  const row = <usize>p.Kp << 2, row2 = row << 1, row3 = row2 + row;
  const d = p.decays + at, q = p.qRows + at, a = p.aRows + at, out = (c << 7) + half;
  const y = writeSumsAt(p) + c * PANEL_PAIR + half, e = eAt(p) + out;
  writtenBlock(dA, d, q, a, p.kRows + at, row, y, dkAt(p) + out, e);
  writtenBlock(dA + 16, d, q, a, p.bRows + at, row, y + 128, dbAt(p) + out, e);
  // Earlier pairs see these reads, and the later ones, decayed from the start of this pair.
  const mine = stageAt(p) + c * PANEL_PAIR + half, end = stageAt(p) + <usize>tiles * PANEL_PAIR;
  let x = v128.load(d);
  v128.store(mine, f32x4.mul(v128.load(q), x));
  v128.store(mine, v128.load(a), 128);
  v128.store(mine, f32x4.mul(v128.load(a + row), x), 160);
  x = f32x4.mul(x, v128.load(d + row));
  v128.store(mine, f32x4.mul(v128.load(q + row), x), 32);
  v128.store(mine, f32x4.mul(v128.load(a + row2), x), 192);
  x = f32x4.mul(x, v128.load(d + row2));
  v128.store(mine, f32x4.mul(v128.load(q + row2), x), 64);
  v128.store(mine, f32x4.mul(v128.load(a + row3), x), 224);
  x = f32x4.mul(x, v128.load(d + row3));
  v128.store(mine, f32x4.mul(v128.load(q + row3), x), 96);
  for (let s = mine + PANEL_PAIR; s < end; s += PANEL_ROW) v128.store(s, f32x4.mul(v128.load(s), x));
  return x;
}

/** Gradient on k (or b, with its columns of dA) of a block of 4 tokens. */
function writtenBlock(dA: usize, d: usize, q: usize, a: usize, k: usize, row: usize, y: usize, dk: usize, e: usize): void {
  const row2 = row << 1, row3 = row2 + row, a1 = v128.load(a + row), a2 = v128.load(a + row2), a3 = v128.load(a + row3);
  const d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row3);
  const q1 = v128.load(q + row), q2 = v128.load(q + row2), q3 = v128.load(q + row3);
  const r1 = dA + SCORE_ROW, r2 = dA + 2 * SCORE_ROW, r3 = dA + 3 * SCORE_ROW;

  let w = f32x4.mul(d3, madd(v128.load_splat<f32>(r3), q3, v128.load(y)));
  w = madd(v128.load_splat<f32>(r3, 4 * SCORE_ROW), a3, w);
  w = f32x4.mul(d2, madd(v128.load_splat<f32>(r2), q2, w));
  w = madd(v128.load_splat<f32>(r2, 4 * SCORE_ROW), a2, w);
  w = f32x4.mul(d1, madd(v128.load_splat<f32>(r1), q1, w));
  w = madd(v128.load_splat<f32>(r1, 4 * SCORE_ROW), a1, w);
  v128.store(e, f32x4.sub(v128.load(e), f32x4.mul(v128.load(k), w)));
  v128.store(dk, madd(v128.load_splat<f32>(dA), v128.load(q), w));

  w = f32x4.mul(d3, madd(v128.load_splat<f32>(r3, 4), q3, v128.load(y, 32)));
  w = madd(v128.load_splat<f32>(r3, 4 * SCORE_ROW + 4), a3, w);
  w = f32x4.mul(d2, madd(v128.load_splat<f32>(r2, 4), q2, w));
  w = madd(v128.load_splat<f32>(r2, 4 * SCORE_ROW + 4), a2, w);
  v128.store(e, f32x4.sub(v128.load(e, 32), f32x4.mul(v128.load(k + row), w)), 32);
  v128.store(dk, madd(v128.load_splat<f32>(r1, 4), q1, w), 32);

  w = f32x4.mul(d3, madd(v128.load_splat<f32>(r3, 8), q3, v128.load(y, 64)));
  w = madd(v128.load_splat<f32>(r3, 4 * SCORE_ROW + 8), a3, w);
  v128.store(e, f32x4.sub(v128.load(e, 64), f32x4.mul(v128.load(k + row2), w)), 64);
  v128.store(dk, madd(v128.load_splat<f32>(r2, 8), q2, w), 64);

  w = v128.load(y, 96);
  v128.store(e, f32x4.sub(v128.load(e, 96), f32x4.mul(v128.load(k + row3), w)), 96);
  v128.store(dk, madd(v128.load_splat<f32>(r3, 12), q3, w), 96);
}
