/** Symmetric positive definite systems, plain TensorFlow.js ops; no gradient of their own. */
import * as tf from '@tensorflow/tfjs';
import { pad } from '../chunks.js';

/** Rows x [n, 1, D] of A x = b for symmetric positive definite A [n, D, D] and b [n, 1, D]. */
export function solveCholesky(A: tf.Tensor, b: tf.Tensor): tf.Tensor {
  const W = inverseFactor(A);
  return tf.matMul(tf.matMul(b, W, false, true), W); // W^T W = A^-1
}

/**
 * W = L^-1 of the Cholesky factor L, A = L L^T, for all matrices [n, D, D] at once. In blocks: with W_1 of the upper left one, the lower
 * left block of L is M = A_21 W_1^T, W_2 is that of A_22 - M M^T, and W = [[W_1, 0], [-W_2 M W_1, W_2]].
 */
function inverseFactor(A: tf.Tensor): tf.Tensor {
  const [n, D] = A.shape;
  if (D === 1) return tf.rsqrt(A);
  const half = D >> 1;
  const rest = D - half;
  const part = (row: number, column: number, rows: number, columns: number) =>
    tf.slice(A, [0, row, column], [n, rows, columns]);
  const first = inverseFactor(part(0, 0, half, half));
  const lower = tf.matMul(part(half, 0, rest, half), first, false, true);
  const second = inverseFactor(tf.sub(part(half, half, rest, rest), tf.matMul(lower, lower, false, true)));
  const corner = tf.neg(tf.matMul(second, tf.matMul(lower, first)));
  return tf.concat([pad(first, 2, [0, rest]), tf.concat([corner, second], 2)], 1);
}
