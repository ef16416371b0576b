/** BitLinear in plain TensorFlow.js ops. */
import * as tf from '@tensorflow/tfjs';
import { rmsNorm } from '../rmsNorm/index.js';
import type { BitLinearInputs } from './index.js';

export const plainRoundedActivations = (x: tf.Tensor, norm: tf.Tensor | undefined, eps: number): tf.Tensor =>
  straightThrough(rmsNorm({ x, weight: norm }, { eps, form: 'plain' }), dequantised(plainActivations));

export const plainRoundedWeight = (weight: tf.Tensor): tf.Tensor => straightThrough(weight, dequantised(plainWeight));

export function plainBitLinear({ x, weight, norm }: BitLinearInputs, eps: number, rounds: boolean): tf.Tensor {
  const [O, I] = weight.shape as [number, number];
  const y = rounds ? plainRoundedActivations(x, norm, eps) : rmsNorm({ x, weight: norm }, { eps, form: 'plain' });
  const out = tf.matMul(tf.reshape(y, [-1, I]), plainRoundedWeight(weight) as tf.Tensor2D, false, true);
  return tf.reshape(out, [...x.shape.slice(0, -1), O]);
}

/** Integers and the scale they were multiplied by, [..., 1] or []. */
type Quantised = { values: tf.Tensor; scale: tf.Tensor };

/** round(y * 127 / max|y|) row by row. */
export function plainActivations(y: tf.Tensor): Quantised {
  const scale = tf.div(127, tf.maximum(tf.max(tf.abs(y), -1, true), 1e-5));
  return { values: clip(tf.round(tf.mul(y, scale)), -128, 127), scale };
}

/** -1, 0 or 1: round(W / mean|W|). */
export function plainWeight(weight: tf.Tensor): Quantised {
  const scale = tf.div(1, tf.maximum(tf.mean(tf.abs(weight)), 1e-5));
  return { values: clip(tf.round(tf.mul(weight, scale)), -1, 1), scale };
}

/** Not tf.clipByValue, which gives 0 for NaN on wasm (4.22). */
const clip = (x: tf.Tensor, low: number, high: number): tf.Tensor => tf.maximum(tf.minimum(x, high), low);

const dequantised = (quantise: (x: tf.Tensor) => Quantised) => (x: tf.Tensor) => {
  const { values, scale } = quantise(x);
  return tf.div(values, scale);
};

/** f(x), with the gradient of the identity. */
function straightThrough(x: tf.Tensor, f: (x: tf.Tensor) => tf.Tensor): tf.Tensor {
  return tf.customGrad((value) => ({ value: f(value as tf.Tensor), gradFunc: (dy: tf.Tensor) => tf.clone(dy) }))(x);
}
