/** Gated DeltaNet (Yang et al. 2024, https://arxiv.org/abs/2412.06464): the delta rule on a state that forgets, one rate per head. */
import type * as tf from '@tensorflow/tfjs';
import { checkDelta, type DeltaOptions, type DeltaOutput, type DeltaRuleInputs } from '../delta/inputs.js';
import { runDelta } from '../delta/run.js';

export interface GatedDeltaRuleInputs extends DeltaRuleInputs {
  /** Natural logarithm of the decay, g <= 0: [B, T, HV]. -Infinity forgets everything. */
  g: tf.Tensor;
}

/**
 * R_t = exp(g_t) S_{t-1}, S_t = R_t + k_t (beta_t (v_t - R_t^T k_t))^T and o_t = scale * S_t^T q_t: the state decays first, then the
 * value that key k_t stands for moves by beta_t towards v_t. Differentiable in every input and through both outputs; an input cut
 * anywhere and carried over by `finalState` -> `initialState` gives the same as one pass.
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function gatedDeltaRule(inputs: GatedDeltaRuleInputs, options: DeltaOptions = {}): DeltaOutput {
  checkDelta('gatedDeltaRule', inputs, options, 'head');
  return runDelta('gatedDeltaRule', inputs, options);
}
