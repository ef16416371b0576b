/** Batch norm in plain TensorFlow.js ops. */
import * as tf from '@tensorflow/tfjs';
import type { BatchNormInputs } from './index.js';

export function plainBatchNorm(inputs: BatchNormInputs, training: boolean, eps: number): tf.Tensor {
  const { x, weight, bias, runningMean, runningVar } = inputs;
  const rows = tf.reshape(x, [-1, runningMean.size]);
  const mean = training ? tf.mean(rows, 0) : runningMean;
  const centred = tf.sub(rows, training ? mean : constant(mean));
  const variance = training ? tf.mean(tf.square(centred), 0) : runningVar;
  const normed = tf.mul(centred, tf.rsqrt(tf.add(training ? variance : constant(variance), eps)));
  const scaled = weight ? tf.mul(normed, weight) : normed;
  const y = tf.reshape(bias ? tf.add(scaled, bias) : scaled, x.shape);
  return withStatistics(y, [runningMean, runningVar], [mean, variance]);
}

/** x as a value that the tape knows nothing of. */
const constant = (x: tf.Tensor): tf.Tensor => tf.customGrad(() => ({ value: tf.clone(x), gradFunc: () => [] }))();

/** y, and `statistics` as the gradients of `slots`. */
function withStatistics(y: tf.Tensor, slots: [tf.Tensor, tf.Tensor], statistics: [tf.Tensor, tf.Tensor]): tf.Tensor {
  const op = tf.customGrad((...args) => {
    const [value, , , save] = args as unknown as [tf.Tensor, tf.Tensor, tf.Tensor, tf.GradSaveFunc];
    save(statistics);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) => [dy, ...saved].map((t) => tf.clone(t));
    return { value: tf.clone(value), gradFunc };
  });
  return op(y, ...slots);
}
