/** Gated KalmaNet (2025, https://arxiv.org/abs/2511.21016): linear attention whose query is first passed through a ridge regression. */
import {
  checkGatedKalmaNet,
  type GatedKalmaNetInputs,
  type GatedKalmaNetOptions,
  type GatedKalmaNetOutput,
} from './inputs.js';
import { runGatedKalmaNet } from './run.js';

/**
 * With H_t = exp(g_t) H_{t-1} + k_t k_t^T and U_t = exp(g_t) U_{t-1} + k_t v_t^T: (H_t + lambda_t I) x_t = q_t, where lambda_t =
 * ridgeRatio * ||H_t||_F, and o_t = scale * U_t^T (q_t + alpha_t (x_t - q_t)). At alpha = 1 that is the answer of the linear map which fits all
 * values to all keys so far, the older ones weighing less, with ridge penalty lambda_t (sec. 4.1). Where H_t = 0, lambda_t = ridgeRatio.
 * Differentiable in every input and through all outputs; an input cut anywhere and carried over by `finalState` -> `initialState` gives the
 * same as one pass. The solution of `chebyshev` is an approximation, and its gradients in k and g are those of the exact solution, evaluated with
 * it (README, section 5).
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function gatedKalmaNet(inputs: GatedKalmaNetInputs, options: GatedKalmaNetOptions = {}): GatedKalmaNetOutput {
  checkGatedKalmaNet(inputs, options);
  return runGatedKalmaNet(inputs, options);
}
