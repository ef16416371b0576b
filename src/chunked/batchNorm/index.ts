/** Batch norm (Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, Algorithm 1) over all axes but the last. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { checkEps } from '../rmsNorm/rootNorm.js';
import { lastAxis } from '../rows.js';
import { fusedBatchNorm } from './fused.js';
import { plainBatchNorm } from './plain.js';

export interface BatchNormInputs {
  x: tf.Tensor;
  weight?: tf.Tensor;
  bias?: tf.Tensor;
  runningMean: tf.Tensor;
  runningVar: tf.Tensor;
}

export interface BatchNormOptions {
  /** True: normalise with the statistics of x; false (default): with the running ones. */
  training?: boolean;
  /** Added to the variance inside the root; default 1e-5. */
  eps?: number;
  form?: PlainForm;
}

/**
 * y = (x - mean) * (variance + eps)^-1/2 * weight + bias, mean and (biased) variance per feature, over batch and time.
 *
 * The gradients of runningMean and runningVar are not of the loss: they hold the statistics that the call normalised with, whatever the
 * gradient on y. So training can move the running values towards those of the batch (`WeightSpec.runningRate`), and out of training
 * (where they are the running values themselves) they stay.
 * @param inputs x [..., D]; weight [D], ones if absent; bias [D], zeros if absent; runningMean, runningVar [D]; float32
 * @returns same shape as x
 * @throws RangeError for a weight, bias or statistic of another width or a negative eps
 */
export function batchNorm(
  { x, weight, bias, runningMean, runningVar }: BatchNormInputs,
  { training = false, eps = 1e-5, form = 'auto' }: BatchNormOptions = {},
): tf.Tensor {
  const D = lastAxis('batchNorm', x);
  checkGiven('batchNorm', { runningMean, runningVar });
  checkDtype('batchNorm', { x, weight, bias, runningMean, runningVar });
  const expected = { weight, bias, runningMean, runningVar };
  checkShapes('batchNorm', Object.fromEntries(Object.entries(expected).map(([name, t]) => [name, [t, [D]]])));
  checkEps('batchNorm', eps);
  const inputs = { x, weight, bias, runningMean, runningVar };
  if (isFused('batchNorm', form)) return fusedBatchNorm(inputs, { training, eps });
  return tf.tidy(() => plainBatchNorm(inputs, training, eps));
}
