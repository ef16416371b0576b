/** Gradients of an op under given upstreams. Apart from `tensors.ts`, because pages in a browser use it too, without vitest. */
import * as tf from '@tensorflow/tfjs';

/**
 * Outputs of `f` and the gradient of `sum(upstream_i * output_i)` for every named input.
 * Upstreams that are undefined leave that output out of the sum.
 */
export function outputsAndGrads<I extends Record<string, tf.Tensor>>(
  f: (inputs: I) => tf.Tensor[],
  inputs: I,
  upstreams: (tf.Tensor | undefined)[],
): { outputs: tf.Tensor[]; grads: { [name in keyof I]: tf.Tensor } } {
  const names = Object.keys(inputs) as (keyof I & string)[];
  const outputs = tf.tidy(() => f(inputs));
  const objective = (...xs: tf.Tensor[]) => {
    const outs = f(Object.fromEntries(names.map((n, i) => [n, xs[i]])) as I);
    const terms = outs.flatMap((o, i) => (upstreams[i] ? [tf.sum(tf.mul(o, upstreams[i]))] : []));
    return tf.addN(terms) as tf.Scalar;
  };
  const list = tf.tidy(() => tf.grads(objective)(names.map((n) => inputs[n])));
  return { outputs, grads: Object.fromEntries(names.map((n, i) => [n, list[i]])) as { [name in keyof I]: tf.Tensor } };
}
