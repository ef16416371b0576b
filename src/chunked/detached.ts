/** A tensor as a constant. */
import * as tf from '@tensorflow/tfjs';

/** The same numbers in the same memory, of which no gradient knows: TensorFlow.js has no `stopGradient`. The caller owns it. */
export function detached<X extends tf.Tensor>(x: X): X {
  const { state } = tf.engine() as unknown as { state: { gradientDepth: number } };
  const depth = state.gradientDepth;
  state.gradientDepth = 0; // the tape is off
  try {
    return tf.clone(x) as X;
  } finally {
    state.gradientDepth = depth;
  }
}
