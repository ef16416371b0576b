/** Unit lower triangular systems, plain TensorFlow.js ops. */
import * as tf from '@tensorflow/tfjs';
import { pad } from '../chunks.js';

/**
 * X of (I + L) X = R, for strictly lower triangular L [n, C, C], C a power of two, and R [n, C, D]. Its gradients are those of a solve,
 * dR = (I + L)^-T dX and dL = -dR X^T: those of the inverse would pass through numbers C^2 times larger where keys are alike. dL is left
 * as it is on and above the diagonal, where L is constant.
 */
export const solveUnitLower: (L: tf.Tensor, R: tf.Tensor) => tf.Tensor = tf.customGrad((...args) => {
  const [L, R, save] = args as unknown as [tf.Tensor, tf.Tensor, tf.GradSaveFunc];
  const X = tf.matMul(unitLowerInverse(L), R);
  save([L, X]);
  const gradFunc = (dX: tf.Tensor, saved: tf.Tensor[]) => {
    const dR = tf.matMul(unitLowerInverse(saved[0]), dX, true);
    return [tf.neg(tf.matMul(dR, saved[1], false, true)), dR];
  };
  return { value: X, gradFunc };
});

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
