/** Gated linear attention (Yang et al. 2023, https://arxiv.org/abs/2312.06635): linear attention with a forget gate. */
import * as tf from '@tensorflow/tfjs';
import { checkCuSeqlens, checkDtype, checkGiven, checkOneOf, checkPositiveInt, checkShapes } from '../check.js';
import { eachDocument } from '../packed.js';
import { hasFusedKernels } from '../wasm/runtime.js';
import { chunkGla } from './chunk.js';
import { fusedGla } from './fused.js';
import { parallelGla } from './parallel.js';
import { recurrentGla } from './recurrent.js';

/** All float32. B batch, T tokens, H heads, K key width, V value width, N = B or the number of packed documents. */
export interface GlaInputs {
  /** Queries [B, T, H, K]. */
  q: tf.Tensor;
  /** Keys [B, T, H, K]. */
  k: tf.Tensor;
  /** Values [B, T, H, V]. */
  v: tf.Tensor;
  /** Natural logarithm of the decay, g <= 0: [B, T, H, K] per key channel, or [B, T, H] per head. -Infinity forgets everything. */
  g: tf.Tensor;
  /** State before the first token [N, H, K, V]; zeros when absent. */
  initialState?: tf.Tensor;
}

export interface GlaOptions {
  /** Factor on the queries; default K ** -0.5. */
  scale?: number;
  /**
   * Tokens per chunk of the form `chunk`, a positive integer; default 64. It changes speed and memory, not the result. Powers of two
   * waste nothing. The fused kernel has chunks of its own.
   */
  chunkSize?: number;
  /**
   * `auto` (default): the fused kernel on wasm, else `chunk`; `chunk`: plain ops, linear in T; `recurrent`: plain ops, token by
   * token; `parallel`: plain ops, all pairs of tokens, quadratic in T. All are differentiable and agree up to rounding.
   */
  form?: 'auto' | 'chunk' | 'recurrent' | 'parallel';
  /** Offsets [0, n1, n1 + n2, ..., T] of documents packed along time (B must be 1); each runs alone with its own state. */
  cuSeqlens?: Int32Array;
}

export type GlaOutput = {
  /** Outputs [B, T, H, V]. */
  o: tf.Tensor;
  /** State after the last token (of every document) [N, H, K, V]. */
  finalState: tf.Tensor;
};

/**
 * S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T and o_t = scale * S_t^T q_t (eq. 3). The decay acts before the write, so a token always
 * sees itself. Differentiable in every input and through both outputs; an input cut anywhere and carried over by
 * `finalState` -> `initialState` gives the same as one pass.
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function gla(inputs: GlaInputs, options: GlaOptions = {}): GlaOutput {
  checkInputs(inputs, options);
  const { form = 'auto', chunkSize = 64, scale = (inputs.q.shape[3] as number) ** -0.5, cuSeqlens } = options;
  if (form === 'auto' && hasFusedKernels('gla')) return fusedGla(inputs, { scale, cuSeqlens });
  const run: (x: GlaInputs) => GlaOutput = {
    auto: (x: GlaInputs) => chunkGla(x, scale, chunkSize),
    chunk: (x: GlaInputs) => chunkGla(x, scale, chunkSize),
    recurrent: (x: GlaInputs) => recurrentGla(x, scale),
    parallel: (x: GlaInputs) => parallelGla(x, scale),
  }[form];
  return tf.tidy(() => {
    if (!cuSeqlens) return run(inputs);
    const { initialState, ...tokens } = inputs;
    return eachDocument(cuSeqlens, tokens, { initialState }, (x, state) => run({ ...x, ...state }));
  });
}

function checkInputs({ q, k, v, g, initialState }: GlaInputs, { scale, chunkSize, form, cuSeqlens }: GlaOptions): void {
  checkGiven('gla', { q, k, v, g });
  checkDtype('gla', { q, k, v, g, initialState });
  checkShapes('gla', { q: [q, [null, null, null, null]] });
  const [B, T, H, K] = q.shape;
  checkShapes('gla', { k: [k, [B, T, H, K]], v: [v, [B, T, H, null]] });
  if (q.size === 0 || v.size === 0)
    throw new RangeError(`gla: q and v must not be empty, got [${q.shape.join(',')}] and [${v.shape.join(',')}]`);
  if (g.shape.length !== 3 && g.shape.length !== 4)
    throw new RangeError(`gla: g must have shape [${[B, T, H]}] or [${[B, T, H, K]}], got [${g.shape.join(',')}]`);
  checkShapes('gla', { g: [g, [B, T, H, K].slice(0, g.shape.length)] });
  checkCuSeqlens('gla', cuSeqlens, B, T);
  const N = cuSeqlens ? cuSeqlens.length - 1 : B;
  checkShapes('gla', { initialState: [initialState, [N, H, K, v.shape[3] as number]] });
  if (chunkSize !== undefined) checkPositiveInt('gla', 'chunkSize', chunkSize);
  if (form !== undefined) checkOneOf('gla', 'form', form, ['auto', 'chunk', 'recurrent', 'parallel']);
  if (scale !== undefined && !Number.isFinite(scale))
    throw new RangeError(`gla: scale must be a finite number, got ${scale}`);
}
