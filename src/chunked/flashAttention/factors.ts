/** Terms of the scores that are kept small, made into their dense form [B or 1, H or 1, T, S] by plain TensorFlow.js ops. */
import * as tf from '@tensorflow/tfjs';

/** phiQ [b, T, h, R], phiK [b, S, h, R] -> phiQ_i . phiK_j, where b and h of either may be 1. */
export function factorProduct(phiQ: tf.Tensor, phiK: tf.Tensor): tf.Tensor {
  const [b, h] = [0, 2].map((axis) => Math.max(phiQ.shape[axis] as number, phiK.shape[axis] as number));
  const rows = (x: tf.Tensor) => {
    const [, tokens, , R] = x.shape;
    const all = x.shape[0] === b && x.shape[2] === h ? x : tf.mul(x, tf.ones([b, 1, h, 1])); // its gradient sums, that of matMul does not
    return tf.transpose(all, [0, 2, 1, 3]).reshape([b * h, tokens as number, R as number]);
  };
  const product = tf.matMul(rows(phiQ), rows(phiK), false, true);
  return product.reshape([b, h, phiQ.shape[1] as number, phiK.shape[1] as number]);
}

/**
 * band [b, T or 1, h, 2 w - 1] -> [b, h, T, S], 0 outside the band: entry d of query t is for key position + t + d - (w - 1). A row is shifted
 * by one more than the one above it when rows of P + 1 numbers are read as rows of P.
 */
export function spreadBand(band: tf.Tensor, T: number, S: number, position: number): tf.Tensor {
  const [b, , h, D] = band.shape as [number, number, number, number];
  const start = (D - 1) / 2 - position; // the column of key 0
  const P = Math.max(D + T - 1, start + S);
  const all = band.shape[1] === T ? band : tf.mul(band, tf.ones([1, T, 1, 1]));
  const rows = tf.transpose(all, [0, 2, 1, 3]).reshape([b * h, T, D]);
  const padded = tf.pad(rows as tf.Tensor3D, [
    [0, 0],
    [0, 0],
    [0, P + 1 - D],
  ]);
  const shifted = tf.slice(padded.reshape([b * h, T * (P + 1)]), [0, 0], [-1, T * P]).reshape([b * h, T, P]);
  const seen = tf.slice(shifted, [0, 0, Math.max(0, start)], [-1, -1, S + Math.min(0, start)]);
  const placed = tf.pad(seen as tf.Tensor3D, [
    [0, 0],
    [0, 0],
    [Math.max(0, -start), 0],
  ]);
  return placed.reshape([b, h, T, S]);
}
