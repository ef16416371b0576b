/** Softmax attention in stock TensorFlow.js ops: all scores, what is added to them, softmax over every row. */
import * as tf from '@tensorflow/tfjs';
import type { Params, Pass, Task } from './harness.js';
import { drawTokens, type Inputs, SIZES } from './mixing.js';

/** Names of inputs, and what is added to the scores of these: [1 or H, T, T], made anew in every run. */
export interface StockBias {
  draw(T: number): Inputs;
  bias(inputs: Inputs, T: number): tf.Tensor;
}

/** Causal softmax attention in its ordinary form, and its gradients in q, k, v and what the bias is made from. */
export function stockSoftmax({ draw, bias }: Partial<StockBias> = {}): Task {
  return {
    setup: 'stock',
    prepare({ T, pass }) {
      const mask = tf.tidy(() => {
        const position = tf.range(0, T); // [T, T]: 0 up to the diagonal, -1e9 after it
        return tf.mul(-1e9, tf.cast(tf.greater(position.reshape([1, -1]), position.reshape([-1, 1])), 'float32'));
      });
      const inputs: Inputs = { ...drawQkv(T), ...draw?.(T) };
      const run = (x: Inputs) => {
        const [Q, keys, values] = [x.q, x.k, x.v].map((p) => tf.transpose(p, [0, 2, 1, 3])); // [B, H, T, *]
        const scores = tf.mul(tf.matMul(Q, keys, false, true), SIZES.K ** -0.5);
        const biased = bias ? tf.add(scores, bias(x, T)) : scores;
        return tf.transpose(tf.matMul(tf.softmax(tf.add(biased, mask)), values), [0, 2, 1, 3]);
      };
      if (pass === 'fwd') return () => tf.tidy(() => void run(inputs));
      const upstream = drawTokens(T, SIZES.V, 5);
      const names = Object.keys(inputs);
      const gradients = tf.grads((...xs) => run(Object.fromEntries(names.map((name, i) => [name, xs[i]]))));
      return () => tf.tidy(() => void gradients(Object.values(inputs), upstream));
    },
    refusal: (params) => refuseScores(params, SCORES_HELD[params.pass] + (bias ? 2 : 0)),
  };
}

export function drawQkv(T: number): Record<'q' | 'k' | 'v', tf.Tensor> {
  const { K, V } = SIZES;
  return { q: drawTokens(T, K, 1), k: drawTokens(T, K, 2), v: drawTokens(T, V, 3) };
}

/** Tensors of the size of the scores that softmax attention holds at its peak, and what the backend's memory can hold. */
const SCORES_HELD: Record<Pass, number> = { fwd: 4, fwdbwd: 8 };
const MEMORY_LIMIT = 2 ** 32;

/** Why a task that holds `held` tensors of the size of all scores cannot run. */
export function refuseScores({ T }: Params, held: number): string | undefined {
  const bytes = held * SIZES.B * SIZES.H * T * T * 4;
  if (bytes < MEMORY_LIMIT) return undefined;
  return `its scores need ${(bytes / 2 ** 30).toFixed(1)} GiB at T=${T}, the wasm memory ends at 4 GiB`;
}
