/** What the delta rules share at the door: inputs, options, output and their checks. */
import type * as tf from '@tensorflow/tfjs';
import { checkCuSeqlens, checkDtype, checkGiven, checkOneOf, checkPositiveInt, checkShapes } from '../check.js';

/** All float32. B batch, T tokens, H heads of q and k, HV heads of v, K key width, V value width, N = B or the number of packed documents. */
export interface DeltaRuleInputs {
  /** Queries [B, T, H, K]. */
  q: tf.Tensor;
  /** Keys [B, T, H, K], of length 1 (`l2Norm`). */
  k: tf.Tensor;
  /** Values [B, T, HV, V]; HV is a multiple of H, and HV / H neighbouring value heads share a head of q and k. */
  v: tf.Tensor;
  /** Write strengths [B, T, HV], in [0, 1], or in [0, 2] for transitions with negative eigenvalues. Not checked. */
  beta: tf.Tensor;
  /** State before the first token [N, HV, K, V]; zeros when absent. */
  initialState?: tf.Tensor;
}

export interface DeltaOptions {
  /** Factor on the queries; default K ** -0.5. */
  scale?: number;
  /**
   * Tokens per chunk of the form `chunk`, a positive integer; default 64. It changes speed and memory, not the result. Powers of two
   * waste nothing. A fused kernel has chunks of its own.
   */
  chunkSize?: number;
  /**
   * `auto` (default): the fused kernel on wasm, else `chunk`; `chunk`: plain ops, linear in T; `recurrent`: plain ops, token by
   * token. All are differentiable and agree up to rounding.
   */
  form?: 'auto' | 'chunk' | 'recurrent';
  /** Offsets [0, n1, n1 + n2, ..., T] of documents packed along time (B must be 1); each runs alone with its own state. */
  cuSeqlens?: Int32Array;
}

export type DeltaOutput = {
  /** Outputs [B, T, HV, V]. */
  o: tf.Tensor;
  /** State after the last token (of every document) [N, HV, K, V]. */
  finalState: tf.Tensor;
};

/** The inputs of all delta rules: without a gate, or with one per head [B, T, HV] or per key channel [B, T, HV, K]. */
export interface AnyDeltaInputs extends DeltaRuleInputs {
  g?: tf.Tensor;
}

/** Throws unless inputs and options fit; `gate` says which gates the op has. */
export function checkDelta(
  op: string,
  { q, k, v, beta, g, initialState }: AnyDeltaInputs,
  options: DeltaOptions,
  gate: 'none' | 'head' | 'channel',
): void {
  checkGiven(op, { q, k, v, beta, ...(gate !== 'none' && { g }) });
  checkDtype(op, { q, k, v, beta, g, initialState });
  checkShapes(op, { q: [q, [null, null, null, null]] });
  const [B, T, H, K] = q.shape;
  checkShapes(op, { k: [k, [B, T, H, K]], v: [v, [B, T, null, null]] });
  checkNotEmpty(op, q, v);
  const [HV, V] = v.shape.slice(2);
  if (HV % H !== 0)
    throw new RangeError(`${op}: the heads of v must be a multiple of those of q and k (${H}), got ${HV}`);
  checkShapes(op, { beta: [beta, [B, T, HV]], g: [g, gate === 'head' ? [B, T, HV] : [B, T, HV, K]] });
  checkOptions(op, options, B, T);
  checkShapes(op, { initialState: [initialState, [statesOf(options, B), HV, K, V]] });
}

/** Throws unless the options fit a batch of B sequences of T tokens. */
export function checkOptions(
  op: string,
  { scale, chunkSize, form, cuSeqlens }: DeltaOptions,
  B: number,
  T: number,
): void {
  checkCuSeqlens(op, cuSeqlens, B, T);
  if (chunkSize !== undefined) checkPositiveInt(op, 'chunkSize', chunkSize);
  if (form !== undefined) checkOneOf(op, 'form', form, ['auto', 'chunk', 'recurrent']);
  if (scale !== undefined && !Number.isFinite(scale))
    throw new RangeError(`${op}: scale must be a finite number, got ${scale}`);
}

export function checkNotEmpty(op: string, q: tf.Tensor, v: tf.Tensor): void {
  if (q.size === 0 || v.size === 0)
    throw new RangeError(`${op}: q and v must not be empty, got [${q.shape.join(',')}] and [${v.shape.join(',')}]`);
}

/** The number of independent states. */
export const statesOf = ({ cuSeqlens }: DeltaOptions, B: number): number => (cuSeqlens ? cuSeqlens.length - 1 : B);
