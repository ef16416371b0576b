/** What Gated KalmaNet takes and gives, and the checks at its door. */
import type * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkOneOf, checkShapes } from '../check.js';
import { checkNotEmpty, checkOptions, type DeltaOptions, statesOf } from '../delta/inputs.js';

/** What is carried from one piece of a text to the next, float32. N = B or the number of packed documents. */
export type GatedKalmaNetState = {
  /** Covariance of the keys [N, H, D, D], symmetric and without negative eigenvalues; of another matrix the symmetric part is taken. */
  kk: tf.Tensor;
  /** Keys times values [N, H, D, V]. */
  kv: tf.Tensor;
};

/** All float32. B batch, T tokens, H heads, D width of queries and keys, V value width. */
export interface GatedKalmaNetInputs {
  /** Queries [B, T, H, D]. */
  q: tf.Tensor;
  /** Keys [B, T, H, D]; the layer's have length `beta` in (0, 1). */
  k: tf.Tensor;
  /** Values [B, T, H, V]. */
  v: tf.Tensor;
  /** Natural logarithm of the decay, g <= 0: [B, T, H]. -Infinity forgets everything. */
  g: tf.Tensor;
  /** How far the query goes from q (0) to the solution of the ridge regression (1): [B, T, H]. Not checked. */
  alpha: tf.Tensor;
  /** State before the first token; zeros when absent. */
  initialState?: GatedKalmaNetState;
}

export interface GatedKalmaNetOptions extends DeltaOptions {
  /**
   * Steps of the Chebyshev iteration, default 30; 20 or 10 are faster and less exact (README, section 3). 0: no solve at all, q is used as
   * it is and alpha has no effect, which is `gla` with one gate per head; `kk` is still carried.
   */
  numIterations?: number;
  /** lambda_t = ridgeRatio * ||H_t||, a positive number, default 0.02. It bounds the condition number: (1 + ridgeRatio) / ridgeRatio. */
  ridgeRatio?: number;
  /**
   * `chebyshev` (default), or `exact`: the Cholesky factors of every token's matrix, T * H * D * D numbers, in plain ops on every backend
   * and in every form; `numIterations` has no meaning for it.
   */
  solver?: 'chebyshev' | 'exact';
  /** Whether keys and gates get a gradient through lambda_t, default true. */
  lambdaGradient?: boolean;
  /** Whether `kk` decays with g as `kv` does, default true. */
  decayKk?: boolean;
}

export type GatedKalmaNetOutput = {
  /** Outputs [B, T, H, V]. */
  o: tf.Tensor;
  /** State after the last token (of every document). */
  finalState: GatedKalmaNetState;
};

/** Throws unless inputs and options fit. */
export function checkGatedKalmaNet(inputs: GatedKalmaNetInputs, options: GatedKalmaNetOptions): void {
  const op = 'gatedKalmaNet';
  const { q, k, v, g, alpha, initialState } = inputs;
  checkGiven(op, { q, k, v, g, alpha });
  checkDtype(op, { q, k, v, g, alpha });
  checkShapes(op, { q: [q, [null, null, null, null]] });
  const [B, T, H, D] = q.shape;
  checkShapes(op, { k: [k, [B, T, H, D]], v: [v, [B, T, H, null]], g: [g, [B, T, H]], alpha: [alpha, [B, T, H]] });
  checkNotEmpty(op, q, v);
  checkOptions(op, options, B, T);
  checkSolver(op, options);
  if (!initialState) return;
  const states = { 'initialState.kk': initialState.kk, 'initialState.kv': initialState.kv };
  checkGiven(op, states);
  checkDtype(op, states);
  const N = statesOf(options, B);
  checkShapes(op, {
    'initialState.kk': [initialState.kk, [N, H, D, D]],
    'initialState.kv': [initialState.kv, [N, H, D, v.shape[3] as number]],
  });
}

function checkSolver(op: string, { numIterations, ridgeRatio, solver }: GatedKalmaNetOptions): void {
  if (numIterations !== undefined && !(Number.isInteger(numIterations) && numIterations >= 0))
    throw new RangeError(`${op}: numIterations must be 0 or a positive integer, got ${numIterations}`);
  if (ridgeRatio !== undefined && !(Number.isFinite(ridgeRatio) && ridgeRatio > 0))
    throw new RangeError(`${op}: ridgeRatio must be a positive number, got ${ridgeRatio}`);
  if (solver !== undefined) checkOneOf(op, 'solver', solver, ['chebyshev', 'exact']);
}
