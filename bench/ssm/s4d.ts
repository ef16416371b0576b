/** S4D (https://arxiv.org/abs/2206.11893) up to its output, and one token of it. */
import * as tf from '@tensorflow/tfjs';
import { diagonalSsm } from '../../src/chunked/index.js';
import type { Weights } from './handover.js';
import type { Layer } from './layers.js';
import type { Step } from './steps.js';

const inputs = (u: tf.Tensor, { logDt, logAReal, aImag, c, d }: Weights) => ({
  ...{ u, c, d, dt: tf.exp(logDt), a: tf.stack([tf.neg(tf.exp(logAReal)), aImag], 2) },
  b: tf.stack([tf.onesLike(aImag), tf.zerosLike(aImag)], 2),
});

export const S4D: Layer = {
  name: 's4d',
  forward: (u, weights) => diagonalSsm(inputs(u, weights), { outputFinalState: false }).o,
};

export const S4D_STEP: Step = {
  name: 's4d',
  prepare(weights) {
    const { u: _, ...fixed } = tf.tidy(() => inputs(tf.scalar(0), weights));
    return (u, initialState) => {
      const { o, finalState } = diagonalSsm({ ...fixed, u, initialState });
      return { o, state: finalState };
    };
  },
};
