/**
 * The linear recurrence of HGRN (https://arxiv.org/abs/2311.04823) and S5 (https://arxiv.org/abs/2208.04933) in float64:
 *
 *   h_t = a_t h_{t-1} + b_t
 *
 * and its gradients by running l_t = dL/dh_t backwards, with complex numbers as pairs of independent real ones:
 *
 *   l_t = dO_t + conj(a_{t+1}) l_{t+1}        l_T = dO_T + dFinalState
 *   db_t = l_t      da_t = l_t conj(h_{t-1})      dg_t = a_t da_t for a = exp(g)
 */
import { sequencesOf } from './sequences.js';

export interface LinearScanDims {
  B: number;
  T: number;
  D: number;
  /** Every array holds pairs [re, im]. */
  complex?: boolean;
}

/** Flat row-major arrays: b [B,T,D]; a or its logarithm g [B,T,D] or [D] (told apart by length); initialState [N,D]. */
export interface LinearScanOracleInputs {
  a?: ArrayLike<number>;
  g?: ArrayLike<number>;
  b: ArrayLike<number>;
  initialState?: ArrayLike<number>;
}

/** In the layout of what they belong to. `terms.*`: the size of what tokens sum in a state and in a shared factor's gradient, which may cancel. */
export interface LinearScanOracleResult {
  'terms.finalState': Float64Array;
  'terms.dInitialState': Float64Array;
  'terms.da': Float64Array;
  'terms.dg': Float64Array;
  o: Float64Array;
  finalState: Float64Array;
  da: Float64Array;
  dg: Float64Array;
  db: Float64Array;
  dInitialState: Float64Array;
}

type Complex = readonly [number, number];

export function linearScanOracle(
  { a, g, b, initialState }: LinearScanOracleInputs,
  { B, T, D, complex = false }: LinearScanDims,
  { reverse = false, cuSeqlens }: { reverse?: boolean; cuSeqlens?: ArrayLike<number> } = {},
  { dO, dFinalState }: { dO?: ArrayLike<number>; dFinalState?: ArrayLike<number> } = {},
): LinearScanOracleResult {
  const parts = complex ? 2 : 1;
  const get = (x: ArrayLike<number> | undefined, i: number): Complex =>
    x ? [x[parts * i], complex ? x[2 * i + 1] : 0] : [0, 0];
  const add = (x: Float64Array, i: number, [re, im]: Complex) => {
    x[parts * i] += re;
    if (complex) x[2 * i + 1] += im;
  };
  const given = (a ?? g) as ArrayLike<number>;
  const shared = given.length === D * parts && B * T > 1;
  const sequences = sequencesOf(B, T, cuSeqlens);
  const out: LinearScanOracleResult = {
    'terms.finalState': new Float64Array(1),
    'terms.dInitialState': new Float64Array(1),
    'terms.da': new Float64Array(1),
    'terms.dg': new Float64Array(1),
    o: new Float64Array(b.length),
    finalState: new Float64Array(sequences.length * D * parts),
    da: new Float64Array(given.length),
    dg: new Float64Array(given.length),
    db: new Float64Array(b.length),
    dInitialState: new Float64Array(sequences.length * D * parts),
  };
  const summed = new Float64Array(D);
  const summedLogs = new Float64Array(D);
  sequences.forEach(([start, length], n) => {
    for (let d = 0; d < D; d++) {
      const order = Array.from({ length }, (_, i) => start + (reverse ? length - 1 - i : i));
      const place = (t: number) => (shared ? d : t * D + d);
      const factor = (t: number): Complex => (a ? get(a, place(t)) : [Math.exp(given[place(t)]), 0]);
      const states = [get(initialState, n * D + d)];
      let sized = Math.hypot(...states[0]);
      for (const t of order) {
        const [ar, ai] = factor(t);
        const [hr, hi] = states[states.length - 1];
        const [br, bi] = get(b, t * D + d);
        sized = Math.hypot(ar, ai) * sized + Math.hypot(br, bi);
        states.push([ar * hr - ai * hi + br, ar * hi + ai * hr + bi]);
        add(out.o, t * D + d, states[states.length - 1]);
      }
      add(out.finalState, n * D + d, states[length]);
      grow(out['terms.finalState'], sized);

      let [lr, li] = get(dFinalState, n * D + d);
      sized = Math.hypot(lr, li);
      for (let i = length - 1; i >= 0; i--) {
        const t = order[i];
        const [ur, ui] = get(dO, t * D + d);
        lr += ur;
        li += ui;
        add(out.db, t * D + d, [lr, li]);
        const [hr, hi] = states[i];
        const [ar, ai] = factor(t);
        const slope: Complex = [lr * hr + li * hi, li * hr - lr * hi];
        add(out.da, place(t), slope);
        add(out.dg, place(t), [ar * slope[0], 0]);
        const size = Math.hypot(lr, li) * Math.hypot(hr, hi);
        summed[d] += size;
        summedLogs[d] += ar * size;
        [lr, li] = [ar * lr + ai * li, ar * li - ai * lr];
        sized = Math.hypot(ar, ai) * (sized + Math.hypot(ur, ui));
      }
      add(out.dInitialState, n * D + d, [lr, li]);
      grow(out['terms.dInitialState'], sized);
    }
  });
  if (shared) out['terms.da'][0] = Math.max(...summed);
  if (shared && g) out['terms.dg'][0] = Math.max(...summedLogs);
  return out;
}

function grow(largest: Float64Array, size: number): void {
  largest[0] = Math.max(largest[0], size);
}
