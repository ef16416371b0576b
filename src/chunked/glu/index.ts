/** Gated linear unit (Dauphin et al. 2016, https://arxiv.org/abs/1612.08083, eq. 1): y = value * sigmoid(gate). */
import * as tf from '@tensorflow/tfjs';
import type { PlainForm } from '../form.js';
import { gatedUnit } from '../gatedUnit.js';

export interface GluOptions {
  form?: PlainForm;
}

/** Value and gate apart, or both in one tensor: value first, as in torch.nn.GLU. */
export type GluInputs = { value: tf.Tensor; gate: tf.Tensor } | { x: tf.Tensor };

/**
 * @param inputs value and gate, any equal shape; or x [..., 2D], whose first half is the value. float32
 * @returns value * sigmoid(gate): the shape of value, or [..., D]
 * @throws RangeError when the shapes differ or the last axis of x is odd
 */
export function glu(inputs: GluInputs, { form = 'auto' }: GluOptions = {}): tf.Tensor {
  return unit(inputs, form);
}

const unit = gatedUnit({
  name: 'glu',
  first: 'value',
  second: 'gate',
  plain: (value, gate) => tf.mul(value, tf.sigmoid(gate)),
});
