/** The convolution as W shifted products: TensorFlow.js ops only, runs and trains on every backend. */
import * as tf from '@tensorflow/tfjs';
import { eachDocument } from '../packed.js';
import type { CausalConv1dInputs, CausalConv1dOutput } from './index.js';

export function plainCausalConv1d(
  { x, weight, bias, initialState }: CausalConv1dInputs,
  { silu, cuSeqlens }: { silu: boolean; cuSeqlens?: Int32Array },
): CausalConv1dOutput {
  return tf.tidy(() => {
    const run = (tokens: { x: tf.Tensor }, states: { initialState?: tf.Tensor }) =>
      convolve(tokens.x, states.initialState, weight, bias, silu);
    return cuSeqlens ? eachDocument(cuSeqlens, { x }, { initialState }, run) : run({ x }, { initialState });
  });
}

function convolve(
  x: tf.Tensor,
  initialState: tf.Tensor | undefined,
  weight: tf.Tensor,
  bias: tf.Tensor | undefined,
  silu: boolean,
): CausalConv1dOutput {
  const [B, T, D] = x.shape;
  const W = weight.shape[1] as number;
  const before = initialState ? tf.transpose(initialState, [0, 2, 1]) : tf.zeros([B, W, D]);
  const inputs = tf.concat([before, x], 1); // row t + 1 + j meets tap j for token t
  const taps = tf.transpose(weight, [1, 0]); // a slice, not tf.split: the gradient of a split into one piece throws
  const terms = Array.from({ length: W }, (_, j) =>
    tf.mul(tf.slice(inputs, [0, j + 1, 0], [B, T, D]), tf.slice(taps, [j, 0], [1, D])),
  );
  let z = terms.reduce((sum, term) => tf.add(sum, term));
  if (bias) z = tf.add(z, bias);
  return {
    o: silu ? tf.mul(z, tf.sigmoid(z)) : z,
    finalState: tf.transpose(tf.slice(inputs, [0, T, 0], [B, W, D]), [0, 2, 1]),
  };
}
