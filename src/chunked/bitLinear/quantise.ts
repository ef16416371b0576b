/** The integers behind BitLinear, as tensors: to look at, to pack, and to test. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { rmsNorm } from '../rmsNorm/index.js';
import { checkEps } from '../rmsNorm/rootNorm.js';
import { lastAxis } from '../rows.js';
import { fusedActivations, fusedWeight } from './fused.js';
import { plainActivations, plainWeight } from './plain.js';

export interface QuantisedActivations {
  /** [..., I]: whole numbers from -128 to 127, as floats. */
  values: tf.Tensor;
  /** [..., 1]: what the normed row was multiplied by. */
  scale: tf.Tensor;
}

export interface QuantisedWeight {
  /** [O, I]: -1, 0 or 1, as floats. */
  values: tf.Tensor;
  /** []: what the weight was multiplied by. */
  scale: tf.Tensor;
}

/**
 * round(y * scale) with y = rmsNorm(x) * norm and scale = 127 / max(max|y|, 1e-5) per row, as `bitLinear` uses them. No gradient.
 * @param inputs x [..., I]; norm [I], ones if absent; float32
 */
export function quantiseActivations(
  { x, norm }: { x: tf.Tensor; norm?: tf.Tensor },
  { eps = 1e-6, form = 'auto' }: { eps?: number; form?: PlainForm } = {},
): QuantisedActivations {
  checkGiven('quantiseActivations', { x });
  checkDtype('quantiseActivations', { x, norm });
  checkShapes('quantiseActivations', { norm: [norm, [lastAxis('quantiseActivations', x)]] });
  checkEps('quantiseActivations', eps);
  if (isFused('quantiseActivations', form)) return fusedActivations(x, norm, eps);
  const { values, scale } = tf.tidy(() => plainActivations(rmsNorm({ x, weight: norm }, { eps, form: 'plain' })));
  return { values, scale };
}

/**
 * clip(round(W * scale), -1, 1) with scale = 1 / max(mean|W|, 1e-5), as `bitLinear` uses them. No gradient.
 * @param weight [O, I], float32
 */
export function quantiseWeight(weight: tf.Tensor, { form = 'auto' }: { form?: PlainForm } = {}): QuantisedWeight {
  checkGiven('quantiseWeight', { weight });
  checkDtype('quantiseWeight', { weight });
  checkShapes('quantiseWeight', { weight: [weight, [null, null]] });
  if (isFused('quantiseWeight', form)) return fusedWeight(weight);
  const { values, scale } = tf.tidy(() => plainWeight(weight));
  return { values, scale };
}
