/** Forget gates in log space, shared by the plain forms of every gated op. */
import * as tf from '@tensorflow/tfjs';

/** exp of this is 0 in float32, subnormal numbers included, so no finite gate below it can be told from -Infinity. */
const LOWEST = -128;

/**
 * The gate with everything below -128 (and so -Infinity) raised to -128: the same decay in float32, namely 0, but sums and
 * products of it stay finite on every backend. The gradient passes unchanged: whatever reaches it has the decay as a factor.
 */
export function finiteGate(g: tf.Tensor): tf.Tensor {
  return raise(g);
}

// `tf.maximum` alone would add a comparison, a cast and a product to the backward pass.
const raise = tf.customGrad((g) => ({
  value: tf.maximum(g as tf.Tensor, LOWEST),
  gradFunc: (dy: tf.Tensor) => dy,
}));
