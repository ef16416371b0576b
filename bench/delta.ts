/** The delta rules and DPLR: the fused kernels against the plain ops and PyTorch, KDA against DPLR at the same work, growth, share of the limit. */
import * as tf from '@tensorflow/tfjs';
import { deltaRule, dplr, gatedDeltaRule, kda } from '../src/chunked/index.js';
import type { Params, Suite } from './harness.js';
import { drawTokens, type Measured, measureMixing, mixingTask, SIZES, SIZES_NAME, unitRows } from './mixing.js';
import { inPython } from './python.js';

const PLAIN = { form: 'chunk' } as const;

export const delta: Suite = {
  name: 'delta',
  tests: ['test/chunked/delta.', 'test/chunked/kda.', 'test/chunked/dplr.'],
  tasks: {
    kda: mixingTask('ours', drawKda, (x) => kda(x).o),
    'stock-kda': mixingTask('stock', drawKda, (x) => kda(x, PLAIN).o),
    gatedDeltaRule: mixingTask('ours', drawGated, (x) => gatedDeltaRule(x).o),
    'stock-gatedDeltaRule': mixingTask('stock', drawGated, (x) => gatedDeltaRule(x, PLAIN).o),
    deltaRule: mixingTask('ours', drawDelta, (x) => deltaRule(x).o),
    'stock-deltaRule': mixingTask('stock', drawDelta, (x) => deltaRule(x, PLAIN).o),
    dplr: mixingTask('ours', drawDplr, (x) => dplr(x).o),
    'kda-through-dplr': mixingTask('ours', drawKda, (x) => dplr(asDplr(x)).o),
    'stock-dplr': mixingTask('stock', drawDplr, (x) => dplr(x, PLAIN).o),
  },
  // A state is read twice and written once, 2 each; by DPLR it is written twice.
  run: (context) =>
    measureMixing(context, [
      measured('kda', 6, (params) => [
        'dplr',
        'kda-through-dplr',
        inPython('pytorch-cpu', 'kda.py', { ...SIZES, ...params }),
      ]),
      measured('gatedDeltaRule', 6),
      measured('deltaRule', 6),
      measured('dplr', 8),
    ]),
};

function measured(ours: string, flopPerCell: number, peers: Measured['peers'] = () => []): Measured {
  const all = (params: Params) => [`stock-${ours}`, ...peers(params)];
  return { ours, name: `${ours} ${SIZES_NAME}`, peers: all, flopPerCell };
}

function drawDelta(T: number): Record<'q' | 'k' | 'v' | 'beta', tf.Tensor> {
  const { K, V } = SIZES;
  return tf.tidy(() => ({
    q: unitRows(drawTokens(T, K, 1)),
    k: unitRows(drawTokens(T, K, 2)),
    v: drawTokens(T, V, 3),
    beta: tf.sigmoid(drawTokens(T, undefined, 6)),
  }));
}

function drawGated(T: number): Record<'q' | 'k' | 'v' | 'beta' | 'g', tf.Tensor> {
  return { ...drawDelta(T), g: tf.tidy(() => tf.mul(-0.05, tf.abs(drawTokens(T, undefined, 4)))) };
}

function drawKda(T: number): Record<'q' | 'k' | 'v' | 'beta' | 'g', tf.Tensor> {
  return { ...drawDelta(T), g: tf.tidy(() => tf.mul(-0.05, tf.abs(drawTokens(T, SIZES.K, 4)))) };
}

/** The same numbers as drawKda, as DPLR takes them: its outputs are those of KDA. */
function drawDplr(T: number): Record<'q' | 'k' | 'v' | 'a' | 'b' | 'g', tf.Tensor> {
  return tf.tidy(() => asDplr(drawKda(T)));
}

/** KDA as a case of DPLR: a reads what k would after the decay, b and k write with the strength beta. */
function asDplr({ q, k, v, beta, g }: ReturnType<typeof drawKda>): ReturnType<typeof drawDplr> {
  const written = tf.mul(k, tf.expandDims(beta, 3));
  return { q, k: written, v, a: tf.mul(k, tf.exp(g)), b: tf.neg(written), g };
}
