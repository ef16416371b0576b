/** Cross entropy in TensorFlow.js ops, on any backend. */
import * as tf from '@tensorflow/tfjs';
import { nanOutside } from '../indices.js';

export function plainCrossEntropy(
  logits: tf.Tensor2D,
  targets: tf.Tensor1D,
  ignoreIndex: number | undefined,
  reduction: 'mean' | 'none',
): tf.Tensor {
  const losses = rowLosses(logits, targets, ignoreIndex);
  if (reduction === 'none') return losses;
  if (ignoreIndex === undefined) return tf.mean(losses);
  const counted = tf.sum(tf.cast(tf.notEqual(targets, ignoreIndex), 'float32'));
  return tf.div(tf.sum(losses), tf.maximum(counted, 1));
}

/**
 * [N] losses. The gradient, (softmax - one-hot) * dy, is written out: the one that TensorFlow.js derives would go through the
 * largest logit as well, and add rounding errors where terms should cancel.
 */
function rowLosses(logits: tf.Tensor2D, targets: tf.Tensor1D, ignoreIndex: number | undefined): tf.Tensor {
  const V = logits.shape[1];
  const wrong = nanOutside(targets, V, ignoreIndex);
  const op = tf.customGrad((x, save) => {
    (save as tf.GradSaveFunc)([x as tf.Tensor, targets]);
    const shifted = tf.sub(x as tf.Tensor, tf.max(x as tf.Tensor, 1, true));
    const losses = tf.sub(tf.log(tf.sum(tf.exp(shifted), 1)), pick(shifted, targets, ignoreIndex));
    return { value: zeroIgnored(losses, targets, ignoreIndex), gradFunc };
  });
  const gradFunc = (dy: tf.Tensor, [x, saved]: tf.Tensor[]) => {
    // tf.oneHot (4.22) refuses V = 1, and on wasm it is wrong as float32.
    const hot = V > 1 ? tf.cast(tf.oneHot(saved as tf.Tensor1D, V), 'float32') : tf.onesLike(x);
    const error = tf.sub(tf.softmax(x), hot);
    return zeroIgnored(tf.mul(error, tf.expandDims(dy, 1)), tf.expandDims(saved, 1), ignoreIndex);
  };
  const losses = op(logits);
  return wrong ? tf.add(losses, wrong) : losses;
}

/** Not a product with 0, which would leave a NaN. */
function zeroIgnored(x: tf.Tensor, targets: tf.Tensor, ignoreIndex: number | undefined): tf.Tensor {
  return ignoreIndex === undefined ? x : tf.where(tf.equal(targets, ignoreIndex), tf.scalar(0, x.dtype), x);
}

/** x[row, target[row]]; any number for an ignored row. */
function pick(x: tf.Tensor, targets: tf.Tensor1D, ignoreIndex?: number): tf.Tensor {
  const [N, V] = x.shape as [number, number];
  const columns = zeroIgnored(targets, targets, ignoreIndex);
  const at = tf.add(tf.mul(tf.range(0, N, 1, 'int32'), tf.scalar(V, 'int32')), columns);
  return tf.gather(tf.reshape(x, [N * V]), at as tf.Tensor1D);
}
