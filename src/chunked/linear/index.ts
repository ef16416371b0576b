/** A dense projection, y = x W^T + b, with the weight in the layout of published checkpoints. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { lastAxis } from '../rows.js';
import { fusedLinear } from './fused.js';

export interface LinearInputs {
  /** [..., I] */
  x: tf.Tensor;
  /** [O, I] */
  weight: tf.Tensor;
  /** [O]; none if absent. */
  bias?: tf.Tensor;
}

export interface LinearOptions {
  form?: PlainForm;
}

/**
 * y = x W^T + b over the last axis: one matrix product of all rows of x, whatever axes they come from.
 * @param inputs x [..., I]; weight [O, I]; bias [O], none if absent; float32
 * @returns [..., O]
 * @throws TypeError for a missing or non-float32 tensor, RangeError for a weight or bias that does not fit
 */
export function linear({ x, weight, bias }: LinearInputs, { form = 'auto' }: LinearOptions = {}): tf.Tensor {
  checkGiven('linear', { x, weight });
  const I = lastAxis('linear', x);
  checkDtype('linear', { x, weight, bias });
  checkShapes('linear', { weight: [weight, [null, I]] });
  const O = weight.shape[0] as number;
  checkShapes('linear', { bias: [bias, [O]] });
  if (isFused('linear', form)) return fusedLinear({ x, weight, bias });
  return tf.tidy(() => {
    const y = tf.matMul(tf.reshape(x, [-1, I]), weight, false, true);
    return tf.reshape(bias ? tf.add(y, bias) : y, [...x.shape.slice(0, -1), O]);
  });
}
