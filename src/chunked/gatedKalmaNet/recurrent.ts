/** The solve token by token: every H_t by the recurrence. */
import * as tf from '@tensorflow/tfjs';
import { finiteGate } from '../finiteGate.js';
import type { OpOutput } from '../packed.js';
import { unstack } from '../unstack.js';
import type { SolveInputs, SolveOptions } from './run.js';
import { solveRidge, type TokenMatrices } from './solve.js';

/** H_t = exp(g_t) H_{t-1} + k_t k_t^T (README, section 1), then all tokens' systems at once: T * H * D * D numbers are held. */
export function recurrentSolve({ q, k, g, kk }: SolveInputs, options: SolveOptions): OpOutput {
  const [B, T, H, D] = q.shape;
  const decays = unstack(tf.exp(finiteGate(g))).map((x) => x.reshape([B, H, 1, 1]));
  let matrix: tf.Tensor = kk ?? tf.zeros([B, H, D, D]);
  const matrices = unstack(k).map((key, t) => {
    matrix = tf.add(tf.mul(decays[t], matrix), tf.mul(key.reshape([B, H, D, 1]), key.reshape([B, H, 1, D])));
    return matrix.reshape([B, 1, H * D * D]);
  });
  const all = tf.concat(matrices, 1).reshape([B * T * H, D, D]);
  const x = solveRidge(q.reshape([B * T * H, 1, D]), [all], plainMatrices, options);
  return { o: x.reshape([B, T, H, D]), finalState: matrix };
}

/** The matrices as they are, [n, D, D], one to a token. */
function plainMatrices([H]: tf.Tensor[]): TokenMatrices {
  return {
    times: (x) => tf.matMul(x, H),
    squaredNorms: () => tf.sum(tf.square(H), [1, 2]).reshape([-1, 1, 1]),
    materialised: () => H,
  };
}
