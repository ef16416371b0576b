/** The forget gate of GLA (Yang et al. 2023, https://arxiv.org/abs/2312.06635, section 4.4) in log space. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedOp } from '../wasm/fusedOp.js';

export interface LogSigmoidGateOptions {
  /** Divides logsigmoid(x), so that the decay starts near 1; default 16. The paper's sigmoid(x)^(1/16). */
  normalizer?: number;
  /** Lowest value, applied after the division; no gradient flows where it holds. Default none. */
  clampMin?: number;
  form?: PlainForm;
}

/**
 * g = max(logsigmoid(x) / normalizer, clampMin), the natural log of the decay.
 * The kernel is right to 2e-7 of g itself; the plain form to 1e-7 absolute (its log(1 + e) rounds 1 + e).
 * @param inputs x of any shape, float32
 * @returns same shape as x, every value <= 0
 * @throws RangeError unless normalizer > 0 and clampMin <= 0
 */
export function logSigmoidGate(
  { x }: { x: tf.Tensor },
  { normalizer = 16, clampMin, form = 'auto' }: LogSigmoidGateOptions = {},
): tf.Tensor {
  checkDtype('logSigmoidGate', { x });
  if (!(normalizer > 0 && normalizer < Number.POSITIVE_INFINITY))
    throw new RangeError(`logSigmoidGate: normalizer must be a positive number, got ${normalizer}`);
  if (clampMin !== undefined && !(clampMin <= 0))
    throw new RangeError(`logSigmoidGate: clampMin must be zero or negative, got ${clampMin}`);
  const low = clampMin ?? Number.NEGATIVE_INFINITY;
  if (isFused('logSigmoidGate', form)) return fused({ x }, { factor: 1 / normalizer, low })[0];
  return tf.tidy(() => {
    // not tf.logSigmoid: its gradient reads x without saving it, so x must not be freed before (4.22)
    const g = tf.div(tf.neg(tf.softplus(tf.neg(x))), normalizer);
    return clampMin === undefined ? g : tf.maximum(g, clampMin);
  });
}

const fused = fusedOp<'x', { factor: number; low: number }>({
  name: 'LogSigmoidGate',
  inputs: ['x'],
  forward(ctx, { x }, { factor, low }) {
    const y = ctx.out(x.shape);
    ctx.kernels.logSigmoidGateFwd(ctx.ptr(x), ctx.ptr(y), tf.util.sizeFromShape(x.shape), factor, low);
    return [y];
  },
  backward(ctx, [dy], { x }, _, { factor, low }) {
    const dx = ctx.out(x.shape);
    const size = tf.util.sizeFromShape(x.shape);
    ctx.kernels.logSigmoidGateBwd(ctx.ptr(x), ctx.ptr(dy), ctx.ptr(dx), size, factor, low);
    return { x: dx };
  },
});
