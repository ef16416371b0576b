/** Gated linear attention: the fused kernel against softmax attention, the plain ops and PyTorch, its growth, its share of the limit. */
import * as tf from '@tensorflow/tfjs';
import { gla as op } from '../src/chunked/index.js';
import type { Suite } from './harness.js';
import { drawTokens, measureMixing, mixingTask, SIZES, SIZES_NAME } from './mixing.js';
import { inPython } from './python.js';
import { stockSoftmax } from './softmax.js';

export const gla: Suite = {
  name: 'gla',
  tests: ['test/chunked/gla.'],
  tasks: {
    gla: mixingTask('ours', draw, (x) => op(x).o),
    'stock-gla': mixingTask('stock', draw, (x) => op(x, { form: 'chunk' }).o),
    'stock-softmax': stockSoftmax(),
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
