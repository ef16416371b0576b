/**
 * A mixture of experts (Shazeer et al. 2017, https://arxiv.org/abs/1701.06538) with the sigmoid router of DeepSeek-V3
 * (https://arxiv.org/abs/2412.19437, Sec. 2.1.2) and Kimi Linear: each token goes through the few gated units that it scores highest.
 */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkPositiveInt, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { lastAxis } from '../rows.js';
import { fusedMixtureOfExperts } from './fused.js';
import { plainMixtureOfExperts } from './plain.js';
import { type Routing, routingFault } from './routing.js';

export type { Routing } from './routing.js';

/** All float32. D model width, E experts, I width inside an expert. */
export interface MixtureOfExpertsInputs {
  /** [..., D] */
  x: tf.Tensor;
  /** What the router says of each token, before the sigmoid: [..., E]. */
  logits: tf.Tensor;
  /** Added to the scores for the choice alone [E]; none if absent. Its gradient slot carries the load, see `mixtureOfExperts`. */
  bias?: tf.Tensor;
  /** Gate of every expert [E, I, D]. */
  w1: tf.Tensor;
  /** Down projection of every expert [E, D, I]. */
  w2: tf.Tensor;
  /** Up projection of every expert [E, I, D]. */
  w3: tf.Tensor;
}

export interface MixtureOfExpertsOptions extends Routing {
  form?: PlainForm;
}

/**
 * With s = sigmoid(logits), a token chooses the k experts with the largest s + bias (of equals the first; with groups, those outside of
 * the kept ones count as 0), and
 *
 *   y = sum over the chosen e of w_e * w2_e (silu(w1_e x) * w3_e x),   w_e = routedScalingFactor * s_e [/ (sum of the chosen s + 1e-20)]
 *
 * The cost is that of the chosen experts. Differentiable in x, logits and the experts; nothing flows through the choice. The gradient
 * of `bias` is not that of the loss: it is E times the tokens of each expert minus all choices (whole numbers), whatever comes from
 * above. So whoever descends along it evens the load out, and the sum over several calls tells the load of all.
 * @returns [..., D]
 * @throws TypeError for a missing or non-float32 tensor, RangeError for a shape or an option that does not fit
 */
export function mixtureOfExperts(inputs: MixtureOfExpertsInputs, options: MixtureOfExpertsOptions): tf.Tensor {
  const routing = checked(inputs, options);
  const { x, logits, ...weights } = inputs;
  const run = isFused('mixtureOfExperts', options.form ?? 'auto') ? fusedMixtureOfExperts : plainMixtureOfExperts;
  return tf.tidy(() => {
    const rows = (t: tf.Tensor) => tf.reshape(t, [-1, lastAxis('mixtureOfExperts', t)]);
    return tf.reshape(run({ x: rows(x), logits: rows(logits), ...weights }, routing), x.shape);
  });
}

function checked(
  { x, logits, bias, w1, w2, w3 }: MixtureOfExpertsInputs,
  { renormalize = true, routedScalingFactor = 1, numExpertGroup = 1, topkGroup = 1, ...rest }: MixtureOfExpertsOptions,
): Required<Routing> {
  const op = 'mixtureOfExperts';
  checkGiven(op, { x, logits, w1, w2, w3 });
  checkDtype(op, { x, logits, bias, w1, w2, w3 });
  const D = lastAxis(op, x);
  checkShapes(op, { w1: [w1, [null, null, D]] });
  const [E, I] = w1.shape as [number, number];
  checkShapes(op, { w2: [w2, [E, D, I]], w3: [w3, [E, I, D]], bias: [bias, [E]] });
  checkShapes(op, { logits: [logits, [...x.shape.slice(0, -1), E]] });
  if (x.size === 0 || w1.size === 0)
    throw new RangeError(`${op}: x and the experts must not be empty, got [${x.shape}] and [${w1.shape}]`);
  const routing = {
    numExpertsPerToken: rest.numExpertsPerToken,
    renormalize,
    routedScalingFactor,
    numExpertGroup,
    topkGroup,
  };
  for (const name of ['numExpertsPerToken', 'numExpertGroup', 'topkGroup'] as const)
    checkPositiveInt(op, name, routing[name]);
  if (!Number.isFinite(routedScalingFactor))
    throw new RangeError(`${op}: routedScalingFactor must be a finite number, got ${routedScalingFactor}`);
  const fault = routingFault(routing, E);
  if (fault) throw new RangeError(`${op}: ${fault[0]} ${fault[1]}`);
  return routing;
}
