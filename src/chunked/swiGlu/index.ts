/** SwiGLU: y = silu(gate) * up (Shazeer 2020, https://arxiv.org/abs/2002.05202, eq. 6 between the projections). */
import * as tf from '@tensorflow/tfjs';
import type { PlainForm } from '../form.js';
import { gatedUnit } from '../gatedUnit.js';

export interface SwiGluOptions {
  form?: PlainForm;
}

/** Gate and up apart, or both in one tensor: gate first. */
export type SwiGluInputs = { gate: tf.Tensor; up: tf.Tensor } | { x: tf.Tensor };

/**
 * @param inputs gate and up, any equal shape; or x [..., 2D], whose first half is the gate. float32
 * @returns silu(gate) * up: the shape of gate, or [..., D]
 * @throws RangeError when the shapes differ or the last axis of x is odd
 */
export function swiGlu(inputs: SwiGluInputs, { form = 'auto' }: SwiGluOptions = {}): tf.Tensor {
  return unit(inputs, form);
}

const unit = gatedUnit({
  name: 'swiGlu',
  first: 'gate',
  second: 'up',
  plain: (gate, up) => tf.mul(tf.mul(gate, tf.sigmoid(gate)), up),
});
