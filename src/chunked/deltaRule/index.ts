/** DeltaNet (Yang et al. 2024, https://arxiv.org/abs/2406.06484): linear attention that replaces what a key stood for. */
import { checkDelta, type DeltaOptions, type DeltaOutput, type DeltaRuleInputs } from '../delta/inputs.js';
import { runDelta } from '../delta/run.js';

/**
 * S_t = S_{t-1} + k_t (beta_t (v_t - S_{t-1}^T k_t))^T and o_t = scale * S_t^T q_t: the value that key k_t stands for moves by beta_t
 * towards v_t. Differentiable in every input and through both outputs; an input cut anywhere and carried over by
 * `finalState` -> `initialState` gives the same as one pass.
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function deltaRule({ q, k, v, beta, initialState }: DeltaRuleInputs, options: DeltaOptions = {}): DeltaOutput {
  const inputs = { q, k, v, beta, initialState };
  checkDelta('deltaRule', inputs, options, 'none');
  return runDelta('deltaRule', inputs, options);
}
