/** Sizes, tensors and scratch memory of a call of DPLR's kernels. */
import { PANEL } from '../wasm/lib/chunk.as';
import { pad8 } from '../wasm/lib/rows.as';

/** Bytes of a row of the [32, 32] scores, and of the scores. */
// @ts-ignore: decorator
@inline
export const SCORE_ROW: usize = 128;
// @ts-ignore: decorator
@inline
const SCORES: usize = 4096;
/** From a pair to the next one: down the diagonal of the scores, and down a panel. */
// @ts-ignore: decorator
@inline
export const CORNER: usize = 8 * SCORE_ROW + 32;
// @ts-ignore: decorator
@inline
export const PANEL_PAIR: usize = 256;

/** Sizes, tensors and scratch of a call. It lies at the start of the scratch memory. */
// @ts-ignore: decorator
@unmanaged
export class Plan {
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
const PANELS: usize = 12;

/** Bytes of the scratch of a chunk. */
export function chunkBytes(Kp: i32): usize {
  return PLAN_BYTES + 3 * SCORES + PANELS * PANEL + 9 * (<usize>Kp << 6) + (<usize>Kp << 2);
}

export function planOf(
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
export function keyAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * p.keys + (<usize>(h * p.K) << 2); }
// @ts-ignore: decorator
@inline
export function valueAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * p.values + (<usize>(h * p.V) << 2); }
// @ts-ignore: decorator
@inline
export function panelAt(p: Plan, i: usize): usize { return p.panels + i * PANEL; }
/** Bytes of the states of all heads, dense. */
// @ts-ignore: decorator
@inline
export function denseStates(p: Plan): usize { return <usize>p.H * <usize>(p.K * p.V) << 2; }

// dz is the gradient on z. States are held transposed ([V, K] in panels of K): their only use here is (dO, dz) S^T and rowsum(S * dS).
// The gradient on the state is held both ways: dS for dv and dz, dS^T for dk and db.

/** What only the backward pass needs. Rows and panels in pairs. */
// @ts-ignore: decorator
@unmanaged
export class Back {
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
export const BACK_BYTES: usize = 64;
