/** Diagonal state spaces (S4D, Gu et al. 2022, https://arxiv.org/abs/2206.11893): one single-input single-output system for each channel. */
import * as tf from '@tensorflow/tfjs';
import { checkCuSeqlens, checkDtype, checkGiven, checkOneOf, checkPositiveInt, checkShapes } from '../check.js';
import { type DiscretisationRule, discretise } from '../discretise/index.js';
import { hasFusedKernels } from '../wasm/runtime.js';
import { chunkDiagonalSsm } from './chunk.js';
import { convDiagonalSsm } from './conv.js';
import { documents } from './documents.js';
import { fusedDiagonalSsm } from './fused.js';
import { recurrentDiagonalSsm } from './recurrent.js';
import { bothWays } from './reverse.js';
import { scanDiagonalSsm } from './scan.js';
import type { StateForm, StateInputs, StateOptions } from './states.js';

/**
 * All float32. B batch, T tokens, H channels, M complex modes of each, N = B or the number of packed documents. Complex tensors have a last axis
 * [re, im], and so have gradients on them.
 */
export interface DiagonalSsmInputs {
  /** Inputs [B, T, H]. */
  u: tf.Tensor;
  /** Steps, in the unit of time of a: [H], or [H, M] for one of each mode. */
  dt: tf.Tensor;
  /** Continuous modes, Re a < 0: [R, M, 2]. R divides H: channel h uses copy h mod R. */
  a: tf.Tensor;
  /** Input weights [R, M, 2]. */
  b: tf.Tensor;
  /** Output weights [H, M, 2]. */
  c: tf.Tensor;
  /** Weight of u itself in the output [H]; zeros when absent. */
  d?: tf.Tensor;
  /** Output weights of a second system that runs from the last token to the first [H, M, 2]: the layer then reads both ways, without states. */
  cReverse?: tf.Tensor;
  /** State before the first token [N, H, M, 2]; zeros when absent. */
  initialState?: tf.Tensor;
}

export interface DiagonalSsmOptions {
  /** `zoh` (default): u is held between steps. `bilinear`: the trapezoidal rule. */
  discretisation?: DiscretisationRule;
  /**
   * `auto` (default): on wasm the fused kernel, or `conv` where that is faster (long inputs, no states, no documents), else `chunk`. `conv`: a
   * convolution by FFT. `chunk`: matrix products, plain ops. `recurrent`: token by token, plain ops. `scan`: all states at once, plain ops. All are
   * differentiable and agree up to rounding.
   */
  form?: DiagonalSsmForm;
  /** Tokens per chunk of the plain form `chunk`, a positive integer; default 64. It changes speed and memory, not the result. */
  chunkSize?: number;
  /** Offsets [0, n1, n1 + n2, ..., T] of documents packed along time (B must be 1); each runs alone with its own state. */
  cuSeqlens?: Int32Array;
  /** True (default): each mode stands for a conjugate pair, y = 2 Re(c x). False: y = Re(c x). */
  conjugate?: boolean;
  /** Modes whose frequency dt |Im a| / 2 pi is at least half of this, in turns per token at rate 1, count for nothing in o. Default: none. */
  bandlimit?: number;
  /** Factor of all steps: 2 reads a signal sampled half as often as in training. Default 1. */
  rate?: number;
  /** Make the final state, default true; without it long inputs are faster. False where `cReverse` is given. */
  outputFinalState?: boolean;
}

export type DiagonalSsmForm = (typeof FORMS)[number];
const FORMS = ['auto', 'conv', 'chunk', 'recurrent', 'scan'] as const;

export interface DiagonalSsmOutput {
  /** Outputs [B, T, H]. */
  o: tf.Tensor;
  /** State after the last token (of every document) [N, H, M, 2]; absent where it was not asked for. */
  finalState?: tf.Tensor;
}

/** Tokens and modes from which on a convolution is the faster one. */
const CONV_FROM = { T: 128, M: 8 };

/**
 * x_t = exp(zeta) x_{t-1} + psi b u_t and o_t = 2 Re(sum over modes of c x_t) + d u_t, where zeta and psi are a and dt discretised. With
 * `cReverse` also the sum over later tokens s of 2 Re(cReverse exp((s - t - 1) zeta) psi b) u_s. Differentiable in every input and through both
 * outputs; an input cut anywhere and carried over by `finalState` -> `initialState` gives the same as one pass.
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function diagonalSsm(
  inputs: DiagonalSsmInputs & { cReverse?: undefined },
  options?: DiagonalSsmOptions & { outputFinalState?: true },
): Required<DiagonalSsmOutput>;
export function diagonalSsm(inputs: DiagonalSsmInputs, options?: DiagonalSsmOptions): DiagonalSsmOutput;
export function diagonalSsm(inputs: DiagonalSsmInputs, options: DiagonalSsmOptions = {}): DiagonalSsmOutput {
  checkInputs(inputs, options);
  const { u, dt, a, b, c, d, cReverse, initialState } = inputs;
  const { discretisation = 'zoh', form = 'auto', chunkSize = 64, cuSeqlens } = options;
  const { conjugate = true, bandlimit, rate = 1, outputFinalState = !cReverse } = options;
  const settings = { factor: conjugate ? 2 : 1, chunkSize, final: outputFinalState };
  return tf.tidy(() => {
    const modes = discretise({ dt: rate === 1 ? dt : tf.mul(dt, rate), a }, { rule: discretisation });
    const pass = (weights: tf.Tensor) => (bandlimit === undefined ? weights : limited(weights, dt, a, bandlimit));
    const given = { u, ...modes, b, c: pass(c), d, cReverse: cReverse && pass(cReverse), initialState };
    return compute(given, settings, form, cuSeqlens) as unknown as tf.NamedTensorMap;
  }) as unknown as DiagonalSsmOutput;
}

function compute(
  { cReverse, ...inputs }: StateInputs & { cReverse?: tf.Tensor },
  options: StateOptions,
  form: DiagonalSsmForm,
  cuSeqlens: Int32Array | undefined,
): DiagonalSsmOutput {
  const fused = form === 'auto' && hasFusedKernels('diagonalSsm');
  if (form === 'conv' || (fused && convolves(inputs, options, cuSeqlens)))
    return documents(cuSeqlens, inputs, options, (x) => convDiagonalSsm({ ...x, cReverse }, options));
  if (fused && !cReverse) return fusedDiagonalSsm(inputs, { ...options, cuSeqlens });
  const run = fused
    ? (fusedDiagonalSsm as StateForm)
    : { auto: chunkDiagonalSsm, chunk: chunkDiagonalSsm, recurrent: recurrentDiagonalSsm, scan: scanDiagonalSsm }[form];
  return documents(cuSeqlens, inputs, options, (x) =>
    cReverse ? bothWays(run, x, cReverse, options) : run(x, options),
  );
}

/** Whether FFTs are the faster way, see README, section 7. */
function convolves({ u, c, initialState }: StateInputs, { final }: StateOptions, cuSeqlens?: Int32Array): boolean {
  const [T, M] = [u.shape[1], c.shape[1]] as number[];
  return !cuSeqlens && !initialState && !final && T >= CONV_FROM.T && M >= CONV_FROM.M;
}

/** c [H, M, 2], 0 where a mode turns too fast. */
function limited(c: tf.Tensor, dt: tf.Tensor, a: tf.Tensor, bandlimit: number): tf.Tensor {
  const [H, M] = c.shape;
  const [R] = a.shape;
  const turns = tf.tile(tf.slice(a, [0, 0, 1], [R, M, 1]).reshape([R, M]), [H / R, 1]);
  const frequency = tf.div(tf.mul(tf.abs(turns), dt.rank === 1 ? tf.expandDims(dt, 1) : dt), 2 * Math.PI);
  const open = tf.sub(1, tf.cast(tf.greaterEqual(frequency, bandlimit / 2), 'float32'));
  return tf.mul(c, tf.expandDims(open, 2));
}

function checkInputs(inputs: DiagonalSsmInputs, options: DiagonalSsmOptions): void {
  const op = 'diagonalSsm';
  const { u, dt, a, b, c, d, cReverse, initialState } = inputs;
  const { discretisation, form, chunkSize, cuSeqlens, bandlimit, rate, outputFinalState } = options;
  checkGiven(op, { u, dt, a, b, c });
  checkDtype(op, { u, dt, a, b, c, d, cReverse, initialState });
  checkShapes(op, { u: [u, [null, null, null]], a: [a, [null, null, 2]] });
  const [B, T, H] = u.shape;
  const [R, M] = a.shape;
  if (u.size === 0 || a.size === 0)
    throw new RangeError(`${op}: u and a must not be empty, got [${u.shape.join(',')}] and [${a.shape.join(',')}]`);
  if (H % R !== 0)
    throw new RangeError(`${op}: the copies of a must divide the channels of u, got a [${a.shape}] and u [${u.shape}]`);
  checkShapes(op, { dt: [dt, dt.rank === 2 ? [H, M] : [H]], b: [b, [R, M, 2]], c: [c, [H, M, 2]], d: [d, [H]] });
  checkCuSeqlens(op, cuSeqlens, B, T);
  const N = cuSeqlens ? cuSeqlens.length - 1 : B;
  checkShapes(op, { cReverse: [cReverse, [H, M, 2]], initialState: [initialState, [N, H, M, 2]] });
  if (cReverse && (initialState || outputFinalState))
    throw new RangeError(
      `${op}: with cReverse there are no states, since each output needs all tokens; leave out ${initialState ? 'initialState' : 'outputFinalState'}`,
    );
  if (chunkSize !== undefined) checkPositiveInt(op, 'chunkSize', chunkSize);
  if (form !== undefined) checkOneOf(op, 'form', form, FORMS);
  if (discretisation !== undefined) checkOneOf(op, 'discretisation', discretisation, ['zoh', 'bilinear']);
  for (const [name, value] of Object.entries({ bandlimit, rate }))
    if (value !== undefined && !(value > 0 && Number.isFinite(value)))
      throw new RangeError(`${op}: ${name} must be a number > 0, got ${value}`);
}
