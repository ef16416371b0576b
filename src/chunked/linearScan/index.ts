/** The recurrence of HGRN (Qin et al. 2023, https://arxiv.org/abs/2311.04823) and S5 (Smith et al. 2022, https://arxiv.org/abs/2208.04933). */
import * as tf from '@tensorflow/tfjs';
import { checkCuSeqlens, checkDtype, checkGiven, checkOneOf, checkPositiveInt, checkShapes } from '../check.js';
import { eachDocument } from '../packed.js';
import { hasFusedKernels } from '../wasm/runtime.js';
import { fusedLinearScan } from './fused.js';
import { chunkScan, recurrentScan, treeScan } from './plain.js';

/**
 * All float32. B batch, T tokens, D channels, N = B or the number of packed documents. Complex numbers are pairs [re, im] along one more
 * axis at the end of every tensor: the rank of `b` tells.
 */
export interface LinearScanInputs {
  /** Factors [B, T, D] or [B, T, D, 2], of any size; or [D], [D, 2], shared by all tokens. Either `a` or `g`. */
  a?: tf.Tensor;
  /** Natural logarithms of real factors in (0, 1], [B, T, D] or [D]: g <= 0; -Infinity forgets everything. */
  g?: tf.Tensor;
  /** What is added, [B, T, D] or [B, T, D, 2]. */
  b: tf.Tensor;
  /** State before the first token read, [N, D] or [N, D, 2]; zeros when absent. */
  initialState?: tf.Tensor;
}

export interface LinearScanOptions {
  /** Read from the last token to the first: h_t = a_t h_{t+1} + b_t. Default false. */
  reverse?: boolean;
  /** Tokens per chunk of the form `chunk`, a positive integer; default 16. It changes speed and memory, not the result. */
  chunkSize?: number;
  /**
   * `auto` (default): the fused kernel on wasm, else `chunk`; `chunk`: plain ops, chunkSize steps and a scan over the chunks; `scan`: plain
   * ops, log2(T) steps over all tokens (Hillis and Steele); `recurrent`: plain ops, token by token. All are differentiable and agree up to
   * rounding.
   */
  form?: 'auto' | 'chunk' | 'scan' | 'recurrent';
  /** Offsets [0, n1, n1 + n2, ..., T] of documents packed along time (B must be 1); each runs alone with its own state. */
  cuSeqlens?: Int32Array;
}

export type LinearScanOutput = {
  /** h_t, in the shape of b. */
  o: tf.Tensor;
  /** State after the last token read (of every document) [N, D] or [N, D, 2]. */
  finalState: tf.Tensor;
};

/** A call whose inputs are checked. */
export interface ScanCall {
  /** Factors, or their logarithms where `logs`. */
  a: tf.Tensor;
  logs: boolean;
  b: tf.Tensor;
  initialState?: tf.Tensor;
  reverse: boolean;
  cuSeqlens?: Int32Array;
}

/**
 * h_t = a_t h_{t-1} + b_t for every channel by itself. Differentiable in every input and through both outputs; an input cut anywhere and
 * carried over by `finalState` -> `initialState` gives the same as one pass (with `reverse` the pieces run from the last to the first).
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function linearScan(inputs: LinearScanInputs, options: LinearScanOptions = {}): LinearScanOutput {
  const call = checked(inputs, options);
  const { form = 'auto', chunkSize = 16 } = options;
  if (form === 'auto' && hasFusedKernels('linearScan')) return fusedLinearScan(call);
  const run = {
    auto: (x: ScanCall) => chunkScan(x, chunkSize),
    chunk: (x: ScanCall) => chunkScan(x, chunkSize),
    scan: treeScan,
    recurrent: recurrentScan,
  }[form];
  return tf.tidy(() => {
    const { a, b, initialState, cuSeqlens, ...rest } = call;
    if (!cuSeqlens) return run(call);
    if (a.rank < b.rank)
      return eachDocument(cuSeqlens, { b }, { initialState }, (x, state) => run({ ...x, ...state, ...rest, a }));
    return eachDocument(cuSeqlens, { a, b }, { initialState }, (x, state) => run({ ...x, ...state, ...rest }));
  });
}

function checked({ a, g, b, initialState }: LinearScanInputs, options: LinearScanOptions): ScanCall {
  const { reverse = false, chunkSize, form, cuSeqlens } = options;
  if ((a === undefined) === (g === undefined))
    throw new TypeError(
      `linearScan: give either a, the factors, or g, their logarithms; got ${a ? 'both' : 'neither'}`,
    );
  const factors = (a ?? g) as tf.Tensor;
  const name = a ? 'a' : 'g';
  checkGiven('linearScan', { b });
  checkDtype('linearScan', { a, g, b, initialState });
  const isComplex = b.rank === 4;
  if (isComplex) checkShapes('linearScan', { b: [b, [null, null, null, 2]] });
  else checkShapes('linearScan', { b: [b, [null, null, null]] });
  if (isComplex && g) throw new RangeError('linearScan: g is for real b; give complex factors as a');
  const [B, T] = b.shape;
  const channel = b.shape.slice(2);
  if (b.size === 0) throw new RangeError(`linearScan: b must not be empty, got [${b.shape}]`);
  const shapes = [b.shape, channel];
  if (!shapes.some((shape) => `${shape}` === `${factors.shape}`))
    throw new RangeError(`linearScan: ${name} must have shape [${b.shape}] or [${channel}], got [${factors.shape}]`);
  checkCuSeqlens('linearScan', cuSeqlens, B, T);
  checkShapes('linearScan', { initialState: [initialState, [cuSeqlens ? cuSeqlens.length - 1 : B, ...channel]] });
  if (chunkSize !== undefined) checkPositiveInt('linearScan', 'chunkSize', chunkSize);
  if (form !== undefined) checkOneOf('linearScan', 'form', form, ['auto', 'chunk', 'scan', 'recurrent']);
  return { a: factors, logs: g !== undefined, b, initialState, reverse, cuSeqlens };
}
