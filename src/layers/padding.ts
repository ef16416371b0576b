/** Rows that are padded at their ends, for layers in which every token sees all others. */
import * as tf from '@tensorflow/tfjs';

/**
 * f on the tokens of all rows as packed documents, x [B, T, D] -> [1, N, D] with their offsets, put back in their places; the padding gets zeros.
 * @param lengths tokens of each row, [B]
 */
export function withoutPadding(
  x: tf.Tensor,
  lengths: Int32Array,
  f: (tokens: tf.Tensor, cuSeqlens: Int32Array) => tf.Tensor,
): tf.Tensor {
  const [B, T, D] = x.shape as [number, number, number];
  const cuSeqlens = new Int32Array(B + 1);
  lengths.forEach((length, b) => {
    cuSeqlens[b + 1] = cuSeqlens[b] + length;
  });
  const N = cuSeqlens[B];
  const from = new Int32Array(N);
  const back = new Int32Array(B * T).fill(N);
  for (let b = 0; b < B; b++)
    for (let t = 0; t < lengths[b]; t++) {
      from[cuSeqlens[b] + t] = b * T + t;
      back[b * T + t] = cuSeqlens[b] + t;
    }
  const rows = (index: Int32Array) => tf.tensor1d(index, 'int32');
  const y = f(tf.gather(tf.reshape(x, [B * T, D]), rows(from)).reshape([1, N, D]), cuSeqlens);
  return tf.gather(tf.concat([y.reshape([N, D]), tf.zeros([1, D])], 0), rows(back)).reshape([B, T, D]);
}
