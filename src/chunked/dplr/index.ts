/** The generalised delta rule: a state with a transition that is diagonal plus low rank (https://arxiv.org/abs/2510.26692, sec. 6.2). */
import type * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { checkNotEmpty, checkOptions, type DeltaOptions, type DeltaOutput, statesOf } from '../delta/inputs.js';
import { runPlain } from '../delta/run.js';
import { hasFusedKernels } from '../wasm/runtime.js';
import { chunkDplr } from './chunk.js';
import { fusedDplr } from './fused.js';
import { recurrentDplr } from './recurrent.js';

/** All float32. B batch, T tokens, H heads, K key width, V value width, N = B or the number of packed documents. */
export interface DplrInputs {
  /** Queries [B, T, H, K]. */
  q: tf.Tensor;
  /** Keys [B, T, H, K]. */
  k: tf.Tensor;
  /** Values [B, T, H, V]. */
  v: tf.Tensor;
  /** What reads the state before the token [B, T, H, K]. */
  a: tf.Tensor;
  /** What is written with that reading [B, T, H, K]. Stable where b is about opposite to a and |a| |b| <= 2. */
  b: tf.Tensor;
  /** Natural logarithm of the decay, g <= 0: [B, T, H, K]. -Infinity forgets everything. */
  g: tf.Tensor;
  /** State before the first token [N, H, K, V]; zeros when absent. */
  initialState?: tf.Tensor;
}

/**
 * S_t = diag(exp(g_t)) S_{t-1} + b_t (S_{t-1}^T a_t)^T + k_t v_t^T and o_t = scale * S_t^T q_t. `a` reads the state before it decays.
 * Differentiable in every input and through both outputs; an input cut anywhere and carried over by `finalState` -> `initialState`
 * gives the same as one pass.
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function dplr(inputs: DplrInputs, options: DeltaOptions = {}): DeltaOutput {
  checkInputs(inputs, options);
  const { form = 'auto', scale = (inputs.q.shape[3] as number) ** -0.5, cuSeqlens } = options;
  if (form === 'auto' && hasFusedKernels('dplr')) return fusedDplr(inputs, scale, cuSeqlens);
  return runPlain(inputs, options, { chunk: chunkDplr, recurrent: recurrentDplr });
}

function checkInputs({ q, k, v, a, b, g, initialState }: DplrInputs, options: DeltaOptions): void {
  checkGiven('dplr', { q, k, v, a, b, g });
  checkDtype('dplr', { q, k, v, a, b, g, initialState });
  checkShapes('dplr', { q: [q, [null, null, null, null]] });
  const [B, T, H, K] = q.shape;
  const keys = [B, T, H, K];
  checkShapes('dplr', { k: [k, keys], v: [v, [B, T, H, null]], a: [a, keys], b: [b, keys], g: [g, keys] });
  checkNotEmpty('dplr', q, v);
  checkOptions('dplr', options, B, T);
  checkShapes('dplr', { initialState: [initialState, [statesOf(options, B), H, K, v.shape[3] as number]] });
}
