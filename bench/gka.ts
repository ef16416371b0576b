/** Gated KalmaNet against the plain ops and PyTorch, and what its solve costs beside the ops of the same shape that have none. */
import * as tf from '@tensorflow/tfjs';
import { gatedKalmaNet, gla } from '../src/chunked/index.js';
import { delta } from './delta.js';
import type { Suite } from './harness.js';
import { drawTokens, measureMixing, mixingTask, SIZES, SIZES_NAME, unitRows } from './mixing.js';
import { inPython } from './python.js';

const ITERATIONS = 30;

export const gka: Suite = {
  name: 'gka',
  tests: ['test/chunked/gatedKalmaNet.'],
  tasks: {
    gatedKalmaNet: mixingTask('ours', draw, (x) => gatedKalmaNet(x).o),
    'stock-gatedKalmaNet': mixingTask('stock', draw, (x) => gatedKalmaNet(x, { form: 'chunk' }).o),
    gla: mixingTask('ours', draw, (x) => gla(x).o, ['q', 'k', 'v', 'g']),
    kda: delta.tasks.kda,
  },
  run: (context) =>
    measureMixing(context, [
      {
        ours: 'gatedKalmaNet',
        name: `${SIZES_NAME}, ${ITERATIONS} iterations`,
        peers: (params) => [
          'stock-gatedKalmaNet',
          inPython('pytorch-cpu', 'gatedKalmaNet.py', { ...SIZES, ...params }),
          'gla',
          'kda',
        ],
      },
    ]),
};

function draw(T: number): Record<'q' | 'k' | 'v' | 'g' | 'alpha', tf.Tensor> {
  const { K, V } = SIZES;
  return tf.tidy(() => ({
    ...{ q: unitRows(drawTokens(T, K, 1)), k: unitRows(drawTokens(T, K, 2)), v: drawTokens(T, V, 3) },
    ...{ g: tf.mul(-0.05, tf.abs(drawTokens(T, undefined, 4))), alpha: tf.sigmoid(drawTokens(T, undefined, 6)) },
  }));
}
