/** S5 (https://arxiv.org/abs/2208.04933) up to its output, and one token of it: the path of the layer S5. */
import * as tf from '@tensorflow/tfjs';
import { discretise, linear, linearScan } from '../../src/chunked/index.js';
import { pairExp } from '../../src/chunked/pairs.js';
import { channelScale, modeInput, modeOutput } from '../../src/chunked/s5/index.js';
import { P, type Weights } from './handover.js';
import type { Layer } from './layers.js';
import type { Step } from './steps.js';

/** What stays the same for all tokens: transitions [P, 2], and the weights of the input and the output as real matrices. */
function discrete({ lambdaRe, lambdaIm, logStep, b, c }: Weights): Record<'a' | 'input' | 'output', tf.Tensor> {
  const { zeta, psi } = discretise({ dt: tf.exp(logStep), a: tf.stack([lambdaRe, lambdaIm], 1) });
  return { a: pairExp(zeta), input: modeInput({ b, psi }), output: modeOutput({ c }, { factor: 2 }) };
}

function run(u: tf.Tensor, { a, input, output }: ReturnType<typeof discrete>, d: tf.Tensor, initialState?: tf.Tensor) {
  const T = u.shape[1] as number;
  const b = tf.reshape(linear({ x: u, weight: input }), [1, T, P, 2]);
  const { o: x, finalState } = linearScan({ a, b, initialState });
  const y = linear({ x: tf.reshape(x, [1, T, 2 * P]), weight: output });
  return { o: tf.add(y, channelScale({ x: u, d })), state: finalState };
}

export const S5: Layer = { name: 's5', forward: (u, weights) => run(u, discrete(weights), weights.d).o };

export const S5_STEP: Step = {
  name: 's5',
  prepare(weights) {
    const fixed = tf.tidy(() => discrete(weights));
    return (u, state) => run(u, fixed, weights.d, state);
  },
};
