/** Kimi Delta Attention (https://arxiv.org/abs/2510.26692): the delta rule on a state that forgets, one rate per key channel. */
import type * as tf from '@tensorflow/tfjs';
import { checkDelta, type DeltaOptions, type DeltaOutput, type DeltaRuleInputs } from '../delta/inputs.js';
import { runDelta } from '../delta/run.js';

export interface KdaInputs extends DeltaRuleInputs {
  /** Natural logarithm of the decay, g <= 0: [B, T, HV, K] (`kdaGate`). -Infinity forgets everything. */
  g: tf.Tensor;
}

/**
 * R_t = diag(exp(g_t)) S_{t-1}, S_t = R_t + k_t (beta_t (v_t - R_t^T k_t))^T and o_t = scale * S_t^T q_t (eq. 1): the state decays
 * first, then the value that key k_t stands for moves by beta_t towards v_t. Differentiable in every input and through both outputs;
 * an input cut anywhere and carried over by `finalState` -> `initialState` gives the same as one pass.
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function kda(inputs: KdaInputs, options: DeltaOptions = {}): DeltaOutput {
  checkDelta('kda', inputs, options, 'channel');
  return runDelta('kda', inputs, options);
}
