/** L2 norm of the last axis, as put on q and k by the delta-rule layers (Kimi Linear, https://arxiv.org/abs/2510.26692). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { checkEps, rootNorm } from '../rmsNorm/rootNorm.js';
import { lastAxis } from '../rows.js';

export interface L2NormOptions {
  /** Added to the sum of squares inside the root; default 1e-6. */
  eps?: number;
  form?: PlainForm;
}

/**
 * y = x * (sum(x^2) + eps)^-1/2 over the last axis. The sum of squares is a float32: |x| must stay below 1e18.
 * @param inputs x [..., D], float32
 * @returns same shape as x
 * @throws RangeError for a negative eps
 */
export function l2Norm({ x }: { x: tf.Tensor }, { eps = 1e-6, form = 'auto' }: L2NormOptions = {}): tf.Tensor {
  lastAxis('l2Norm', x);
  checkDtype('l2Norm', { x });
  checkEps('l2Norm', eps);
  if (isFused('l2Norm', form)) return rootNorm({ x }, { meanFactor: 1, eps })[0];
  return tf.tidy(() => tf.mul(x, tf.rsqrt(tf.add(tf.sum(tf.square(x), -1, true), eps))));
}
