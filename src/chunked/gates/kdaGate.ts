/** The forget gate of Kimi Delta Attention (Kimi Linear 2025, https://arxiv.org/abs/2510.26692) in log space. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';

export interface KdaGateInputs {
  /** [B, T, H, K], the output of the gate's projection. */
  f: tf.Tensor;
  /** [H], log of the rate per head; a rate of 1 if absent. */
  aLog?: tf.Tensor;
  /** [H * K], added to f. */
  dtBias: tf.Tensor;
}

export interface KdaGateOptions {
  /** Lowest gate of the bounded variant, below 0 (-5 is usual). Default: the unbounded gate. */
  lowerBound?: number;
  form?: PlainForm;
}

/**
 * With z = f + dtBias and a = exp(aLog) per head: g = -a * softplus(z), or, given a bound, g = lowerBound * sigmoid(a * z).
 * @returns g [B, T, H, K], the natural log of the decay, <= 0
 * @throws RangeError for shapes that do not fit or a bound that is not below 0
 */
export function kdaGate(inputs: KdaGateInputs, { lowerBound, form = 'auto' }: KdaGateOptions = {}): tf.Tensor {
  const { f, aLog, dtBias } = inputs;
  checkDtype('kdaGate', { f, aLog, dtBias });
  checkShapes('kdaGate', { f: [f, [null, null, null, null]] });
  const [H, K] = f.shape.slice(2);
  checkShapes('kdaGate', { aLog: [aLog, [H]], dtBias: [dtBias, [H * K]] });
  if (lowerBound !== undefined && !(lowerBound < 0 && lowerBound > Number.NEGATIVE_INFINITY))
    throw new RangeError(`kdaGate: lowerBound must be a negative number, got ${lowerBound}`);
  if (isFused('kdaGate', form)) return fused({ f, aLog, dtBias }, { bound: lowerBound ?? 0 })[0];
  return tf.tidy(() => plainKdaGate(inputs, H, K, lowerBound));
}

function plainKdaGate({ f, aLog, dtBias }: KdaGateInputs, H: number, K: number, lowerBound?: number): tf.Tensor {
  const z = tf.add(f, tf.reshape(dtBias, [H, K]));
  const perRate = (x: tf.Tensor) => (aLog ? tf.mul(x, tf.reshape(tf.exp(aLog), [H, 1])) : x);
  if (lowerBound !== undefined) return tf.mul(tf.sigmoid(perRate(z)), lowerBound);
  return tf.neg(perRate(tf.softplus(z)));
}

const fused = fusedOp<'f' | 'aLog' | 'dtBias', { bound: number }, 'aLog'>({
  name: 'KdaGate',
  inputs: ['f', 'aLog', 'dtBias'],
  forward(ctx, { f, aLog, dtBias }, { bound }) {
    const g = ctx.out(f.shape);
    const [rows, H, K] = sizes(f);
    const pointers = [f, aLog, dtBias, g].map((t) => ctx.ptr(t));
    ctx.scratch(4 * H, (scale) => ctx.kernels.kdaGateFwd(...pointers, rows, H, K, bound, scale));
    return [g];
  },
  backward(ctx, [dg], { f, aLog, dtBias }, _, { bound }) {
    const [df, daLog, ddtBias] = [f, aLog, dtBias].map((t) => gradientOf(ctx, t));
    const [rows, H, K] = sizes(f);
    const pointers = [f, aLog, dtBias, dg, df, daLog, ddtBias].map((t) => ctx.ptr(t));
    const sums = H * K + 4 * H;
    ctx.scratch(12 * sums + 4 * H, (total) => {
      const [part, scale] = [total + 8 * sums, total + 12 * sums];
      ctx.kernels.kdaGateBwd(...pointers, rows, H, K, bound, scale, part, total);
    });
    return { f: df, aLog: daLog, dtBias: ddtBias };
  },
});

/** [tokens, H, K] */
const sizes = ({ shape: [B, T, H, K] }: tf.TensorInfo) => [B * T, H, K] as const;
