/** Sizes, tensors and scratch memory of a call of the delta rules' kernels, and how a chunk is read. */
import { C, channelDecays, fetch, headDecays, PANEL, SQUARE, SQUARE_ROW, stateBytes } from '../wasm/lib/chunk.as';
import { packRows, pad8 } from '../wasm/lib/rows.as';

/** Kinds of gates. */
// @ts-ignore: decorator
@inline
export const PER_HEAD: i32 = 1;
// @ts-ignore: decorator
@inline
export const PER_CHANNEL: i32 = 2;

/** Sizes, tensors and scratch of a call. It lies at the start of the scratch memory. */
// @ts-ignore: decorator
@unmanaged
export class Plan {
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
  // [16, 16] blocks. scores: P; solve: -A; both transposed in the backward pass. pairs: decays of pairs and their transpose; dScores: 32
  // rows, see dScoresOf.
  scores: usize;
  solve: usize;
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
export function restAt(s: usize, Kp: i32): usize {
  return s + PLAN_BYTES + 6 * SQUARE + 320 + 10 * PANEL + 6 * (<usize>Kp << 6) + (<usize>Kp << 2);
}

export function planOf(
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
  p.pairs = p.solve + SQUARE;
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
export function keyStride(p: Plan): usize { return <usize>(p.H * p.K) << 2; }
// @ts-ignore: decorator
@inline
export function keyAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * keyStride(p) + (<usize>(h / p.group * p.K) << 2); }
// @ts-ignore: decorator
@inline
export function valueStride(p: Plan): usize { return <usize>(p.HV * p.V) << 2; }
// @ts-ignore: decorator
@inline
export function valueAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * valueStride(p) + (<usize>(h * p.V) << 2); }
/** beta, and gates per head. */
// @ts-ignore: decorator
@inline
export function headStride(p: Plan): usize { return <usize>p.HV << 2; }
// @ts-ignore: decorator
@inline
export function headAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * headStride(p) + (<usize>h << 2); }
// @ts-ignore: decorator
@inline
export function gateWidth(p: Plan): i32 { return p.gates == PER_CHANNEL ? p.K : p.gates; }
// @ts-ignore: decorator
@inline
export function gateStride(p: Plan): usize { return <usize>(p.HV * gateWidth(p)) << 2; }
// @ts-ignore: decorator
@inline
export function gateAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * gateStride(p) + (<usize>(h * gateWidth(p)) << 2); }
// @ts-ignore: decorator
@inline
export function solveStride(p: Plan): usize { return <usize>p.HV * SQUARE_ROW; }
// @ts-ignore: decorator
@inline
export function solveAt(p: Plan, t: i32, h: i32): usize { return p.solves + <usize>t * solveStride(p) + <usize>h * SQUARE_ROW; }
// @ts-ignore: decorator
@inline
export function panelAt(p: Plan, i: usize): usize { return p.panels + i * PANEL; }
/** Bytes of the states of all heads, dense. */
// @ts-ignore: decorator
@inline
export function denseStates(p: Plan): usize { return <usize>p.HV * <usize>(p.K * p.V) << 2; }

/** Scratch of the backward pass after the part shared with the forward pass. */
// @ts-ignore: decorator
@unmanaged
export class Held {
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
export const HELD_BYTES: usize = 64;

export function heldOf(p: Plan, chunks: i32): Held {
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

/** Fetches the keys, gates and residuals or values of a chunk. */
export function fetchWrites(p: Plan, values: usize, t: i32, n: i32, h: i32): void {
  const sink = panelAt(p, 0);
  fetch(keyAt(p, p.k, t, h), keyStride(p), n, p.K, sink);
  if (p.gates) fetch(gateAt(p, p.g, t, h), gateStride(p), n, gateWidth(p), sink);
  fetch(valueAt(p, values, t, h), valueStride(p), n, p.V, sink);
}

/** beta of a chunk, 0 past the end. */
export function readStrengths(p: Plan, t: i32, n: i32, h: i32): void {
  let src = headAt(p, p.beta, t, h);
  for (let r = 0; r < C; r++, src += headStride(p)) store<f32>(p.strengths + (<usize>r << 2), r < n ? load<f32>(src) : 0);
}

export function readDecays(p: Plan, t: i32, n: i32, h: i32): void {
  if (!p.gates) return;
  const g = gateAt(p, p.g, t, h);
  if (p.gates == PER_HEAD) headDecays(g, gateStride(p), n, p.Kp, p.head, p.pairs, p.chunkDecay);
  else channelDecays(g, gateStride(p), n, p.K, p.decays, p.chunkDecay);
}

/** q (times scale) and k of a chunk. */
export function readKeys(p: Plan, t: i32, n: i32, h: i32): void {
  packRows(keyAt(p, p.q, t, h), keyStride(p), n, p.K, p.qRows, C, p.scale);
  packRows(keyAt(p, p.k, t, h), keyStride(p), n, p.K, p.kRows, C, 1);
}
