/** The convolution as a product with Toeplitz matrices, H of 2 T^2 numbers: TensorFlow.js ops, runs and trains on every backend. */
import * as tf from '@tensorflow/tfjs';
import type { LongConvolutionInputs } from './index.js';

export function plainLongConvolution({ u, kernel, kernelReverse }: LongConvolutionInputs): tf.Tensor {
  const [, T, H] = u.shape;
  // A circle of 2 T lags: 0 to T - 1, T (which no pair has), then -(T - 1) to -1.
  const circle = tf.concat([kernel, kernelReverse ? tf.reverse(kernelReverse, 1) : tf.zerosLike(kernel)], 1);
  // Written out T times and cut into rows one shorter, each row is turned by one more step: [h, s, t] has the lag t - s.
  const rows = tf.reshape(tf.slice(tf.tile(circle, [1, T]), [0, 0], [H, T * (2 * T - 1)]), [H, T, 2 * T - 1]);
  const matrices = tf.slice(rows, [0, 0, 0], [H, T, T]);
  return tf.transpose(tf.matMul(tf.transpose(u, [2, 0, 1]), matrices), [1, 2, 0]);
}
