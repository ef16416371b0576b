/** Gated linear attention: the fused kernel against softmax attention, the plain ops and PyTorch, its growth, its share of the limit. */
import * as tf from '@tensorflow/tfjs';
import { type GlaInputs, gla as op } from '../src/chunked/index.js';
import type { Params, Pass, Suite, Task } from './harness.js';
import { drawTokens, measureMixing, mixingTask, SIZES, SIZES_NAME } from './mixing.js';
import { inPython } from './python.js';

export const gla: Suite = {
  name: 'gla',
  tests: ['test/chunked/gla.'],
  tasks: {
    gla: mixingTask('ours', draw, (x) => op(x).o),
    'stock-gla': mixingTask('stock', draw, (x) => op(x, { form: 'chunk' }).o),
    'stock-softmax': softmaxAttention(),
  },
  run: (context) =>
    measureMixing(context, [
      {
        ours: 'gla',
        name: SIZES_NAME,
        peers: (params) => ['stock-gla', 'stock-softmax', inPython('pytorch-cpu', 'gla.py', { ...SIZES, ...params })],
        flopPerCell: 4, // 2 to write and 2 to read
      },
    ]),
};

function draw(T: number): Record<'q' | 'k' | 'v' | 'g', tf.Tensor> {
  const { K, V } = SIZES;
  const g = tf.tidy(() => tf.mul(-0.05, tf.abs(drawTokens(T, K, 4))));
  return { q: drawTokens(T, K, 1), k: drawTokens(T, K, 2), v: drawTokens(T, V, 3), g };
}

/** Causal softmax attention in its ordinary form: all scores, a mask added to them, softmax over every row. */
function softmaxAttention(): Task {
  let mask: tf.Tensor | undefined; // [T, T]: 0 up to the diagonal, -1e9 after it
  const run = ({ q, k, v }: Pick<GlaInputs, 'q' | 'k' | 'v'>) => {
    const [Q, keys, values] = [q, k, v].map((x) => tf.transpose(x, [0, 2, 1, 3])); // [B, H, T, *]
    const scores = tf.mul(tf.matMul(Q, keys, false, true), SIZES.K ** -0.5);
    const weights = tf.softmax(tf.add(scores, mask as tf.Tensor));
    return tf.transpose(tf.matMul(weights, values), [0, 2, 1, 3]);
  };
  const task = mixingTask('stock', draw, run, ['q', 'k', 'v']);
  return {
    ...task,
    prepare(params) {
      mask = tf.tidy(() => {
        const position = tf.range(0, params.T);
        return tf.mul(-1e9, tf.cast(tf.greater(position.reshape([1, -1]), position.reshape([-1, 1])), 'float32'));
      });
      return task.prepare(params);
    },
    refusal: refuseSoftmax,
  };
}

/** Tensors of the size of the scores that softmax attention holds at its peak, and what the backend's memory can hold. */
const SCORES_HELD: Record<Pass, number> = { fwd: 4, fwdbwd: 8 };
const MEMORY_LIMIT = 2 ** 32;

function refuseSoftmax({ T, pass }: Params): string | undefined {
  const bytes = SCORES_HELD[pass] * SIZES.B * SIZES.H * T * T * 4;
  if (bytes < MEMORY_LIMIT) return undefined;
  return `its scores need ${(bytes / 2 ** 30).toFixed(1)} GiB at T=${T}, the wasm memory ends at 4 GiB`;
}
