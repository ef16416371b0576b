/** Activation recomputation (Chen et al. 2016, https://arxiv.org/abs/1604.06174): memory for time. */
import * as tf from '@tensorflow/tfjs';

/**
 * f(x), of which the backward pass keeps x alone: it runs f once more for what lies between. Gradients are those of f to the last bit
 * where f gives the same numbers each time. Differentiable once.
 * @param weights every variable that f reads
 */
export function recomputed(f: (x: tf.Tensor) => tf.Tensor, x: tf.Tensor, weights: readonly tf.Variable[]): tf.Tensor {
  const op = tf.customGrad((...args) => {
    const save = args[args.length - 1] as unknown as tf.GradSaveFunc;
    save([args[0] as tf.Tensor]);
    const gradFunc = (dy: tf.Tensor, [x]: tf.Tensor[]) => onTapeOfItsOwn(() => tf.grads(f)([x, ...weights], dy));
    return { value: f(args[0] as tf.Tensor), gradFunc };
  });
  return op(x, ...weights);
}

/** TensorFlow.js 4.22 has one tape: `tf.grads` inside a gradient would leave the one being played back without its end. */
function onTapeOfItsOwn<R>(body: () => R): R {
  const { state } = tf.engine() as unknown as { state: { activeTape: unknown } };
  const outer = state.activeTape;
  try {
    return body();
  } finally {
    state.activeTape = outer;
  }
}
