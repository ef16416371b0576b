/** The two factors of BitLinear by themselves, for products that are taken apart, such as a loss over many classes in pieces. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { checkEps } from '../rmsNorm/rootNorm.js';
import { lastAxis } from '../rows.js';
import { fusedRoundedActivations, fusedRoundedWeight } from './fused.js';
import { plainRoundedActivations, plainRoundedWeight } from './plain.js';

/**
 * The normed and rounded rows of `bitLinear`, divided by their scales again: `linear({ x: roundedActivations({ x, norm }), weight:
 * roundedWeight(weight) })` is `bitLinear({ x, weight, norm })` up to rounding of floats, also in its straight-through gradients.
 * @param inputs x [..., I]; norm [I], ones if absent; float32
 * @returns [..., I]
 */
export function roundedActivations(
  { x, norm }: { x: tf.Tensor; norm?: tf.Tensor },
  { eps = 1e-6, form = 'auto' }: { eps?: number; form?: PlainForm } = {},
): tf.Tensor {
  checkGiven('roundedActivations', { x });
  checkDtype('roundedActivations', { x, norm });
  checkShapes('roundedActivations', { norm: [norm, [lastAxis('roundedActivations', x)]] });
  checkEps('roundedActivations', eps);
  if (isFused('roundedActivations', form)) return fusedRoundedActivations(x, norm, eps);
  return tf.tidy(() => plainRoundedActivations(x, norm, eps));
}

/**
 * The ternary weight of `bitLinear`, divided by its scale again; its gradient is that of the identity.
 * @param weight [O, I], float32
 */
export function roundedWeight(weight: tf.Tensor, { form = 'auto' }: { form?: PlainForm } = {}): tf.Tensor {
  checkGiven('roundedWeight', { weight });
  checkDtype('roundedWeight', { weight });
  checkShapes('roundedWeight', { weight: [weight, [null, null]] });
  if (isFused('roundedWeight', form)) return fusedRoundedWeight(weight);
  return tf.tidy(() => plainRoundedWeight(weight));
}
