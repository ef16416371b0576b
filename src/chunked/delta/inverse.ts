/** Inverse of unit lower triangular matrices, plain TensorFlow.js ops. */
import * as tf from '@tensorflow/tfjs';
import { pad } from '../chunks.js';

/**
 * (I + L)^-1 for strictly lower triangular L [n, C, C], C a power of two. Block forward substitution:
 * the inverse of [[A, 0], [B, D]] is [[A^-1, 0], [-D^-1 B A^-1, D^-1]], with A and D of all matrices inverted together.
 * (The product (I - L)(I + L^2)(I + L^4)... is the same in exact arithmetic, but loses all digits where keys are alike.)
 */
export function unitLowerInverse(L: tf.Tensor): tf.Tensor {
  const [n, C] = L.shape;
  if (C <= 2) return tf.sub(tf.eye(C), L);
  const half = C / 2;
  const part = (row: number, column: number) => tf.slice(L, [0, row, column], [n, half, half]);
  const [upper, lower] = tf.split(unitLowerInverse(tf.concat([part(0, 0), part(half, half)], 0)), 2, 0);
  const corner = tf.neg(tf.matMul(lower, tf.matMul(part(half, 0), upper)));
  return tf.concat([pad(upper, 2, [0, half]), tf.concat([corner, lower], 2)], 1);
}
