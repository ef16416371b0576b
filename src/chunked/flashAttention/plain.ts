/** Softmax attention over all pairs at once, plain TensorFlow.js ops: O(T S) memory, differentiable by itself on every backend. */
import * as tf from '@tensorflow/tfjs';
import type { AttentionMask, FlashAttentionInputs, FlashAttentionOutput } from './index.js';

/** Added to a hidden score: it swallows any score in float32, and its exponential is exactly 0. */
const HIDDEN = -1e30;

/** Same contract as `flashAttention`, arguments already checked. The R = H / G heads that share a key head are rows of one product. */
export function plainFlashAttention(
  { q, k, v }: FlashAttentionInputs,
  scale: number,
  mask: AttentionMask,
): FlashAttentionOutput {
  const [B, T, H, K] = q.shape;
  const [, S, G, V] = v.shape as [number, number, number, number];
  const R = H / G;
  return tf.tidy(() => {
    const queries = tf.transpose(tf.mul(q, scale).reshape([B, T, G, R, K]), [0, 2, 3, 1, 4]).reshape([B * G, R * T, K]);
    const [keys, values] = [k, v].map((x) => tf.transpose(x, [0, 2, 1, 3]).reshape([B * G, S, -1]));
    const products = tf.matMul(queries, keys, false, true).reshape([B * G, R, T, S]);
    const hidden = hiddenPairs(T, S, mask);
    const scores = hidden ? tf.add(products, hidden) : products;
    const weights = tf.exp(belowMax(scores)); // [B G, R, T, S], at most 1
    const sums = tf.sum(weights, -1, true);
    const o = tf.div(tf.matMul(weights.reshape([B * G, R * T, S]), values).reshape([B * G, R, T, V]), sums);
    const lse = tf.add(rowMax(scores), tf.log(sums));
    return {
      o: tf.transpose(o.reshape([B, G, R, T, V]), [0, 3, 1, 2, 4]).reshape([B, T, H, V]),
      lse: tf.transpose(lse.reshape([B, G, R, T]), [0, 3, 1, 2]).reshape([B, T, H]),
    };
  });
}

/** [T, S] of 0 where the query sees the key and -1e30 where it does not; undefined when it sees all. */
function hiddenPairs(T: number, S: number, { causal, window, cuSeqlens }: AttentionMask): tf.Tensor | undefined {
  const key = tf.range(0, S, 1).reshape([1, S]);
  const query = tf.range(S - T, S, 1).reshape([T, 1]);
  const hidden: tf.Tensor[] = [];
  if (causal) hidden.push(tf.greater(key, query));
  if (window !== undefined) hidden.push(tf.lessEqual(key, tf.sub(query, window)));
  if (cuSeqlens) {
    const documents = tf.tensor1d(documentOfToken(cuSeqlens));
    hidden.push(tf.notEqual(documents.reshape([1, S]), documents.reshape([T, 1])));
  }
  if (hidden.length === 0) return undefined;
  return tf.mul(
    tf.cast(
      hidden.reduce((a, b) => tf.logicalOr(a, b)),
      'float32',
    ),
    HIDDEN,
  );
}

function documentOfToken(cuSeqlens: Int32Array): Float32Array {
  const documents = new Float32Array(cuSeqlens[cuSeqlens.length - 1]);
  for (let n = 1; n < cuSeqlens.length; n++) documents.fill(n, cuSeqlens[n - 1], cuSeqlens[n]);
  return documents;
}

/** The largest score of every row [..., 1], a constant to the gradient: o and lse do not depend on what the scores are shifted by. */
const rowMax = tf.customGrad((scores) => ({
  value: tf.max(scores as tf.Tensor, -1, true),
  gradFunc: () => tf.zeros((scores as tf.Tensor).shape),
}));

/** scores - rowMax(scores), in one op: through a subtraction of `rowMax` zeros as large as the scores would be added to the gradient. */
const belowMax = tf.customGrad((scores) => ({
  value: tf.sub(scores as tf.Tensor, tf.max(scores as tf.Tensor, -1, true)),
  gradFunc: (dy: tf.Tensor) => dy,
}));
