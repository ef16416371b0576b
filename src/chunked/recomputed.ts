/** Activation recomputation (Chen et al. 2016, https://arxiv.org/abs/1604.06174): memory for time. */
import * as tf from '@tensorflow/tfjs';

/**
 * f(xs), of which the backward pass keeps the xs alone: it runs f once more for what lies between. Gradients are those of f to the last
 * bit where f gives the same numbers each time. Differentiable once.
 * @param weights every variable that f reads
 */
export function recomputed<Xs extends tf.Tensor[]>(
  f: (...xs: Xs) => tf.Tensor,
  xs: Xs,
  weights: readonly tf.Variable[] = [],
): tf.Tensor {
  const op = tf.customGrad((...args) => {
    const save = args[args.length - 1] as unknown as tf.GradSaveFunc;
    const given = args.slice(0, xs.length) as Xs;
    save(given);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) =>
      onTapeOfItsOwn(() => tf.grads(f as (...xs: tf.Tensor[]) => tf.Tensor)([...saved, ...weights], dy));
    return { value: f(...given), gradFunc };
  });
  return op(...xs, ...weights);
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
