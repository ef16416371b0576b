/** S5 (https://arxiv.org/abs/2208.04933) up to its output, and one token of it. */
import * as tf from '@tensorflow/tfjs';
import { discretise, linear, linearScan } from '../../src/chunked/index.js';
import { H, P, type Weights } from './handover.js';
import type { Layer } from './layers.js';
import type { Step } from './steps.js';

/** The real and the imaginary parts, [..., 1] each. */
function parts(x: tf.Tensor): [tf.Tensor, tf.Tensor] {
  const begin = Array(x.rank - 1).fill(0);
  const size = Array(x.rank - 1).fill(-1);
  return [tf.slice(x, [...begin, 0], [...size, 1]), tf.slice(x, [...begin, 1], [...size, 1])];
}

/** What stays the same for all tokens: transitions [P, 2], and the weights of the input and the output as real matrices. */
function discrete({ lambdaRe, lambdaIm, logStep, b, c }: Weights): Record<'a' | 'input' | 'output', tf.Tensor> {
  const { zeta, psi } = discretise({ dt: tf.exp(logStep), a: tf.stack([lambdaRe, lambdaIm], 1) });
  const [[zRe, zIm], [bRe, bIm], [cRe, cIm]] = [parts(zeta), parts(b), parts(c)];
  const [pRe, pIm] = parts(tf.reshape(psi, [P, 1, 2]));
  const a = tf.mul(tf.exp(zRe), tf.concat([tf.cos(zIm), tf.sin(zIm)], 1));
  const [re, im] = [tf.sub(tf.mul(pRe, bRe), tf.mul(pIm, bIm)), tf.add(tf.mul(pRe, bIm), tf.mul(pIm, bRe))];
  const input = tf.reshape(tf.transpose(tf.concat([re, im], 2), [0, 2, 1]), [2 * P, H]);
  return { a, input, output: tf.mul(2, tf.reshape(tf.concat([cRe, tf.neg(cIm)], 2), [H, 2 * P])) };
}

function run(u: tf.Tensor, { a, input, output }: ReturnType<typeof discrete>, d: tf.Tensor, initialState?: tf.Tensor) {
  const T = u.shape[1] as number;
  const b = tf.reshape(linear({ x: u, weight: input }), [1, T, P, 2]);
  const { o: x, finalState } = linearScan({ a, b, initialState });
  const y = linear({ x: tf.reshape(x, [1, T, 2 * P]), weight: output });
  return { o: tf.add(y, tf.mul(u, d)), state: finalState };
}

export const S5: Layer = { name: 's5', forward: (u, weights) => run(u, discrete(weights), weights.d).o };

export const S5_STEP: Step = {
  name: 's5',
  prepare(weights) {
    const fixed = tf.tidy(() => discrete(weights));
    return (u, state) => run(u, fixed, weights.d, state);
  },
};
