/** GELU in plain TensorFlow.js ops. Not with tf.erf, which is wrong in the seventh digit of 1 and has no accurate tail. */
import * as tf from '@tensorflow/tfjs';

/** Coefficients of t, t^2, ... in Phi(-a) = exp(-a^2 / 2) * sum, t = 1 / (1 + 0.35 a): relative error 3.2e-8 for 0 <= a <= 14. */
const TAIL = [
  0.1396214, 0.1398619, 0.11983271, 0.10550865, -0.02311138, 0.15917644, -0.25571626, 0.14397268, -0.02914613,
];

/** The slope is written out: that of the polynomial would be less exact than Phi + x * phi. */
export function plainErf(x: tf.Tensor): tf.Tensor {
  return tf.customGrad((...args) => {
    const [input, save] = args as unknown as [tf.Tensor, tf.GradSaveFunc];
    save([input]);
    const gradFunc = (dy: tf.Tensor, [saved]: tf.Tensor[]) => {
      const density = tf.mul(tf.exp(tf.mul(tf.square(clipped(saved)), -0.5)), 1 / Math.sqrt(2 * Math.PI));
      return tf.mul(dy, tf.add(distribution(saved), tf.mul(clipped(saved), density)));
    };
    return { value: tf.mul(input, distribution(input)), gradFunc };
  })(x);
}

/** Beyond 16 the density is 0 in float32, and x^2 does not overflow. Not tf.clipByValue, which gives 0 for NaN on wasm (4.22). */
const clipped = (x: tf.Tensor): tf.Tensor => tf.maximum(tf.minimum(x, 16), -16);

function distribution(x: tf.Tensor): tf.Tensor {
  const a = tf.abs(clipped(x));
  const t = tf.div(1, tf.add(tf.mul(a, 0.35), 1));
  const sum = TAIL.reduceRight<tf.Tensor>((y, c) => tf.mul(tf.add(y, c), t), tf.zerosLike(t));
  const tail = tf.mul(tf.exp(tf.mul(tf.square(a), -0.5)), sum);
  return tf.where(tf.less(x, 0), tail, tf.sub(1, tail));
}

/** 0.5 * (1 + tanh(u)) = sigmoid(2u). Beyond 12 it is 0 or 1 in float32, and x^3 does not overflow. */
export function plainTanh(x: tf.Tensor): tf.Tensor {
  const c = tf.maximum(tf.minimum(x, 12), -12);
  const cubic = tf.add(c, tf.mul(tf.mul(tf.square(c), c), 0.044715));
  return tf.mul(x, tf.sigmoid(tf.mul(cubic, 2 * Math.sqrt(2 / Math.PI))));
}
