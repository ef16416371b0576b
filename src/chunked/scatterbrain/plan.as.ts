/** Sizes, tensors and scratch memory of a call, and where the parts of a sequence and head lie. */
import { pad8, packPanel, packTransposed } from '../wasm/lib/rows.as';

/** Queries, and keys, in a tile. */
// @ts-ignore: decorator
@inline
export const TILE: i32 = 64;
/** Bytes of a row of pairs, and of a panel of a tile's rows. */
// @ts-ignore: decorator
@inline
export const PAIR_ROW: usize = 256;
// @ts-ignore: decorator
@inline
export const TILE_PANEL: usize = 2048;
/** Where maxima start: finite, so that no difference is Infinity - Infinity. */
// @ts-ignore: decorator
@inline
export const LOWEST: f32 = -3e38;

/** Lies at the start of the scratch memory. */
// @ts-ignore: decorator
@unmanaged
export class Plan {
  // Sizes of the call.
  H: i32;
  E: i32;
  V: i32;
  r: i32;
  Ep: i32;
  Vp: i32;
  rp: i32;
  mp: i32;
  rounds: i32;
  /** s, its root. */
  temp: f32;
  root: f32;
  /** -log(m) / 2. */
  shift: f32;
  causal: bool;
  /** Tokens that a query sees exactly, itself included; 0: none. Causal only: else a window is one of the rounds. */
  window: i32;
  /** Keys of the past in buckets (rows before those in the order of time), and behind them keys of the past in the window. */
  slots: i32;
  past: i32;
  // The tensors: rows of the sequence and head at hand, by bytes between them.
  q: usize;
  k: usize;
  v: usize;
  keyRow: usize;
  valueRow: usize;
  /** Header of the rounds of the sequence and head at hand (see `support.ts`), and the table that it points into. */
  header: usize;
  tables: usize;
  /** Tokens of the sequence at hand: queries, and keys with those of the past. */
  T: i32;
  S: i32;
  /** Key panels of the projection [rp / 8][Ep, 8], and its panels [Ep / 8][rp, 8]. */
  projection: usize;
  projectionPanels: usize;
  // By row: features [., mp], at most 1, and the logarithms of their scales.
  qf: usize;
  kf: usize;
  aq: usize;
  ak: usize;
  /** The largest scale of a key that a query sees through features. */
  seen: usize;
  /** Ints: whether the features of a key are read. */
  used: usize;
  // The sum over keys far behind (or over queries far ahead): panels [Vp / 8][mp, 8], [mp], and the logarithm of its scale, a whole number.
  sum: usize;
  sumOnes: usize;
  sumScale: f32;
  /** 8 floats. */
  decay: usize;
  // The tile: rows of queries and of keys, gathered. Numbers of rows, -1: none.
  queryIndex: usize;
  keyIndex: usize;
  tq: usize;
  tqf: usize;
  tk: usize;
  tv: usize;
  tkf: usize;
  /** [64]: scale of a key, c of a query. */
  ta: usize;
  tc: usize;
  /** Key panels of tk, of tkf; panels of tv. */
  kColumns: usize;
  fColumns: usize;
  vPanels: usize;
  // [64] for each round: the range of places that a query of the tile sees, first and end; and where in time it is.
  low: usize;
  high: usize;
  time: usize;
  // A strip: scores, products of features, and masks of both.
  scores: usize;
  products: usize;
  scoreMask: usize;
  productMask: usize;
  /** Products of gyn and v of a strip. */
  upstream: usize;
  /** 4 rows of the widest. */
  strip: usize;
  // Forward. By query: maximum c, sums of exact weights and of features, outputs [Vp]; of the tile too.
  c: usize;
  exact: usize;
  low0: usize;
  acc: usize;
  tExact: usize;
  tLow: usize;
  tAcc: usize;
  // Backward.
  gyn: usize;
  mean: usize;
  aqc: usize;
  gq: usize;
  gqf: usize;
  gk: usize;
  gkf: usize;
  gv: usize;
  tg: usize;
  tMean: usize;
  /** [64]: scale of a query less c. */
  tScale: usize;
  tgq: usize;
  tgqf: usize;
  qPanels: usize;
  qfPanels: usize;
  gPanels: usize;
  kPanels: usize;
  fPanels: usize;
  vColumns: usize;
  /** For every 8 keys of a tile the first strip that sees one, and the end of those strips. */
  groups: usize;
  /** [64, 64] each: weights, gradients on scores, gradients on products of features. */
  weights: usize;
  dScores: usize;
  dProducts: usize;
  /** Panels of the gradients on the keys of a tile. */
  gkPanels: usize;
  gkfPanels: usize;
  gvPanels: usize;
  /** Panels [mp / 8][Vp, 8]: the transpose of `sum`. */
  sumT: usize;
  /** First free byte. */
  rest: usize;
}

// @ts-ignore: decorator
@inline
export const PLAN_BYTES: usize = 768;

// @ts-ignore: decorator
@inline
function up64(n: i32): usize { return <usize>((n + 63) & ~63); }

/** Takes `floats` floats, rounded up to 16 bytes. */
function take(p: Plan, floats: usize): usize {
  const at = p.rest;
  p.rest += ((floats << 2) + 15) & ~15;
  return at;
}

/**
 * Lays a plan out at s; T and S are those of the longest sequence. r = 0: no features. Only the plan itself is written.
 */
export function layOut(s: usize, T: i32, S: i32, E: i32, V: i32, r: i32, rounds: i32, backward: bool): Plan {
  const p = changetype<Plan>(s);
  p.E = E;
  p.V = V;
  p.r = r;
  p.rounds = rounds;
  p.Ep = pad8(E);
  p.Vp = pad8(V);
  p.rp = pad8(r);
  p.mp = 2 * p.rp;
  p.rest = s + PLAN_BYTES;
  const Ep = <usize>p.Ep, Vp = <usize>p.Vp, rp = <usize>p.rp, mp = <usize>p.mp, Tt = up64(T), St = up64(S);
  p.projection = take(p, rp * Ep);
  p.projectionPanels = take(p, rp * Ep);
  p.qf = take(p, Tt * mp);
  p.kf = take(p, St * mp);
  p.aq = take(p, Tt);
  p.ak = take(p, St);
  p.seen = take(p, Tt);
  p.used = take(p, St);
  p.sum = take(p, mp * Vp);
  p.sumOnes = take(p, mp);
  p.decay = take(p, 8);
  p.queryIndex = take(p, 64);
  p.keyIndex = take(p, 64);
  p.tq = take(p, 64 * Ep);
  p.tqf = take(p, 64 * mp);
  p.tk = take(p, 64 * Ep);
  p.tv = take(p, 64 * Vp);
  p.tkf = take(p, 64 * mp);
  p.ta = take(p, 64);
  p.tc = take(p, 64);
  p.kColumns = take(p, 64 * Ep);
  p.fColumns = take(p, 64 * mp);
  p.vPanels = take(p, 64 * Vp);
  p.low = take(p, 64 * <usize>max(1, rounds));
  p.high = take(p, 64 * <usize>max(1, rounds));
  p.time = take(p, 64);
  p.scores = take(p, 256);
  p.products = take(p, 256);
  p.scoreMask = take(p, 256);
  p.productMask = take(p, 256);
  p.strip = take(p, 4 * max(mp, max(Vp, Ep)));
  if (backward) {
    p.gyn = take(p, Tt * Vp);
    p.mean = take(p, Tt);
    p.aqc = take(p, Tt);
    p.c = take(p, Tt);
    p.gq = take(p, Tt * Ep);
    p.gqf = take(p, Tt * mp);
    p.gk = take(p, St * Ep);
    p.gkf = take(p, St * mp);
    p.gv = take(p, St * Vp);
    p.tg = take(p, 64 * Vp);
    p.tMean = take(p, 64);
    p.tScale = take(p, 64);
    p.groups = take(p, 16);
    p.upstream = take(p, 256);
    p.tgq = take(p, 64 * Ep);
    p.tgqf = take(p, 64 * mp);
    p.qPanels = take(p, 64 * Ep);
    p.qfPanels = take(p, 64 * mp);
    p.gPanels = take(p, 64 * Vp);
    p.kPanels = take(p, 64 * Ep);
    p.fPanels = take(p, 64 * mp);
    p.vColumns = take(p, 64 * Vp);
    p.weights = take(p, 4096);
    p.dScores = take(p, 4096);
    p.dProducts = take(p, 4096);
    p.gkPanels = take(p, 64 * Ep);
    p.gkfPanels = take(p, 64 * mp);
    p.gvPanels = take(p, 64 * Vp);
    p.sumT = take(p, mp * Vp);
  } else {
    p.c = take(p, Tt);
    p.exact = take(p, Tt);
    p.low0 = take(p, Tt);
    p.acc = take(p, Tt * Vp);
    p.tExact = take(p, 64);
    p.tLow = take(p, 64);
    p.tAcc = take(p, 64 * Vp);
  }
  return p;
}

/** The projection [r, E] as key panels and as panels. */
export function packProjection(p: Plan, projection: usize): void {
  if (!p.r) return;
  const row = <usize>p.E << 2;
  for (let c: usize = 0; c < <usize>p.rp; c += 8)
    packTransposed(projection + c * row, row, min(8, p.r - <i32>c), p.E, p.projection + c * (<usize>p.Ep << 2));
  for (let c: usize = 0; c < <usize>p.Ep; c += 8)
    packPanel(projection, row, p.r, p.E, <i32>c, p.projectionPanels + c * (<usize>p.rp << 2), p.rp);
}

/** Bytes of scratch of a call whose longest sequence has T queries and S keys. `s`: memory for a plan (1024 bytes). */
export function scatterbrainScratch(s: usize, T: i32, S: i32, E: i32, V: i32, r: i32, rounds: i32, backward: bool): usize {
  return layOut(s, T, S, E, V, r, rounds, backward).rest - s;
}
