/** Complex numbers as pairs [re, im] along the last axis, in plain TensorFlow.js ops: for few numbers, and for the plain forms. */
import * as tf from '@tensorflow/tfjs';

/** e^z. */
export function pairExp(z: tf.Tensor): tf.Tensor {
  const [re, im] = parts(z);
  const size = tf.exp(re);
  return joined(tf.mul(size, tf.cos(im)), tf.mul(size, tf.sin(im)));
}

/** x y, of equal shapes. */
export function pairTimes(x: tf.Tensor, y: tf.Tensor): tf.Tensor {
  const [a, b] = parts(x);
  const [c, d] = parts(y);
  return joined(tf.sub(tf.mul(a, c), tf.mul(b, d)), tf.add(tf.mul(a, d), tf.mul(b, c)));
}

function parts(x: tf.Tensor): tf.Tensor[] {
  return tf.split(x, 2, x.rank - 1);
}

const joined = (re: tf.Tensor, im: tf.Tensor): tf.Tensor => tf.concat([re, im], re.rank - 1);
