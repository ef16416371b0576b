/** Short causal convolution, one filter per channel: the local mixer before linear attention (README.md here). */
import type * as tf from '@tensorflow/tfjs';
import { checkCuSeqlens, checkDtype, checkOneOf, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedCausalConv1d } from './fused.js';
import { plainCausalConv1d } from './plain.js';

export interface CausalConv1dInputs {
  /** [B, T, D] */
  x: tf.Tensor;
  /** [D, W]: W taps per channel, the last one for the current token. */
  weight: tf.Tensor;
  /** [D]; zeros if absent. */
  bias?: tf.Tensor;
  /** [B, D, W], or [N, D, W] when N documents are packed: the last W inputs, oldest first (the oldest is never read). Zeros if absent. */
  initialState?: tf.Tensor;
}

export interface CausalConv1dOptions {
  /** After the convolution: 'silu' (default) or null for none. */
  activation?: 'silu' | null;
  /** Offsets [0, n1, n1 + n2, ..., T] of packed documents, each with its own state; needs B = 1. */
  cuSeqlens?: Int32Array;
  form?: PlainForm;
}

/** o [B, T, D] and finalState [B or N, D, W]: the initialState of the tokens that follow. */
export type CausalConv1dOutput = {
  o: tf.Tensor;
  finalState: tf.Tensor;
};

/**
 * o_t = act(bias + sum_{j < W} weight[:, j] * x_{t - W + 1 + j}) per channel, with x_t from `initialState` for t < 0.
 * Cutting a sequence and carrying the state gives the same outputs and gradients as one call.
 * @throws RangeError or TypeError for wrong shapes, dtypes, offsets or options
 */
export function causalConv1d(inputs: CausalConv1dInputs, options: CausalConv1dOptions = {}): CausalConv1dOutput {
  const { x, weight, bias, initialState } = inputs;
  const { activation = 'silu', cuSeqlens, form = 'auto' } = options;
  checkDtype('causalConv1d', { x, weight, bias, initialState });
  checkShapes('causalConv1d', { x: [x, [null, null, null]], weight: [weight, [x.shape[2] ?? null, null]] });
  const [B, T, D] = x.shape as [number, number, number];
  const W = weight.shape[1] as number;
  if (T * W === 0) throw new RangeError(`causalConv1d: needs a token and a tap, got T = ${T} and W = ${W}`);
  checkCuSeqlens('causalConv1d', cuSeqlens, B, T);
  const sequences = cuSeqlens ? cuSeqlens.length - 1 : B;
  checkShapes('causalConv1d', { bias: [bias, [D]], initialState: [initialState, [sequences, D, W]] });
  if (activation !== null) checkOneOf('causalConv1d', 'activation', activation, ['silu']);

  const run = isFused('causalConv1d', form) ? fusedCausalConv1d : plainCausalConv1d;
  return run(inputs, { silu: activation === 'silu', cuSeqlens });
}
