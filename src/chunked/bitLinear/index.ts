/**
 * A projection by ternary weights of int8 activations, with its own norm: the BitLinear of MatMul-free language models (Zhu et al. 2024,
 * https://arxiv.org/abs/2406.02528, Sec. 3.1 and Algorithm 1; BitNet b1.58, https://arxiv.org/abs/2402.17764).
 */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { checkEps } from '../rmsNorm/rootNorm.js';
import { lastAxis } from '../rows.js';
import { fusedBitLinear } from './fused.js';
import { plainBitLinear } from './plain.js';

export { type PackedWeight, packedBitLinear, packedMatrix, packedWeight, packWeight, unpackWeight } from './packed.js';
export { type QuantisedActivations, type QuantisedWeight, quantiseActivations, quantiseWeight } from './quantise.js';
export { roundedActivations, roundedWeight } from './rounded.js';

export interface BitLinearInputs {
  /** [..., I] */
  x: tf.Tensor;
  /** [O, I], in full precision: it is rounded at each call. */
  weight: tf.Tensor;
  /** [I], the scale of the norm; ones if absent. */
  norm?: tf.Tensor;
}

export interface BitLinearOptions {
  /** Added to the mean square inside the root of the norm; default 1e-6, as the published models run. */
  eps?: number;
  /** 8 (default): activations are rounded to -128 .. 127 per token; null: they stay as the norm gives them. */
  activationBits?: 8 | null;
  form?: PlainForm;
}

/**
 * With y = rmsNorm(x) * norm, sa = 127 / max(max|y|, 1e-5) per row and sw = 1 / max(mean|W|, 1e-5) for the whole weight:
 * out = (round(y sa) . clip(round(W sw), -1, 1)^T) / (sa sw). Ties round to even. The sums of integers are exact while I <= 131,072.
 *
 * Gradients are straight through: rounding, clipping and scales count as the identity, so the weight gets that of the rounded
 * activations, the norm that of the ternary weight. Nothing but the inputs is kept for them.
 * @param inputs x [..., I]; weight [O, I]; norm [I], ones if absent; float32
 * @returns [..., O]
 * @throws TypeError for a missing or non-float32 tensor, RangeError for a shape or option that does not fit
 */
export function bitLinear(
  { x, weight, norm }: BitLinearInputs,
  { eps = 1e-6, activationBits = 8, form = 'auto' }: BitLinearOptions = {},
): tf.Tensor {
  checkGiven('bitLinear', { x, weight });
  const I = lastAxis('bitLinear', x);
  checkDtype('bitLinear', { x, weight, norm });
  checkShapes('bitLinear', { weight: [weight, [null, I]], norm: [norm, [I]] });
  checkEps('bitLinear', eps);
  if (activationBits !== 8 && activationBits !== null)
    throw new RangeError(`bitLinear: activationBits must be 8 or null, got ${activationBits}`);
  const rounds = activationBits === 8;
  if (isFused('bitLinear', form)) return fusedBitLinear({ x, weight, norm }, { eps, rounds });
  return tf.tidy(() => plainBitLinear({ x, weight, norm }, eps, rounds));
}
