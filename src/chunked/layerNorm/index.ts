/** Layer norm (Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450, eq. 3-4). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { checkEps } from '../rmsNorm/rootNorm.js';
import { lastAxis, rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';

export interface LayerNormOptions {
  /** Added to the variance inside the root; default 1e-5. */
  eps?: number;
  form?: PlainForm;
}

/**
 * y = (x - mean) * (variance + eps)^-1/2 * weight + bias over the last axis, with the biased variance.
 * @param inputs x [..., D]; weight [D], ones if absent; bias [D], zeros if absent; float32
 * @returns same shape as x
 * @throws RangeError for a weight or bias of another width or a negative eps
 */
export function layerNorm(
  { x, weight, bias }: { x: tf.Tensor; weight?: tf.Tensor; bias?: tf.Tensor },
  { eps = 1e-5, form = 'auto' }: LayerNormOptions = {},
): tf.Tensor {
  const D = lastAxis('layerNorm', x);
  checkDtype('layerNorm', { x, weight, bias });
  checkShapes('layerNorm', { weight: [weight, [D]], bias: [bias, [D]] });
  checkEps('layerNorm', eps);
  if (isFused('layerNorm', form)) return fused({ x, weight, bias }, { eps })[0];
  return tf.tidy(() => {
    const centred = tf.sub(x, tf.mean(x, -1, true));
    const normed = tf.mul(centred, tf.rsqrt(tf.add(tf.mean(tf.square(centred), -1, true), eps)));
    const scaled = weight ? tf.mul(normed, weight) : normed;
    return bias ? tf.add(scaled, bias) : scaled;
  });
}

const fused = fusedOp<'x' | 'weight' | 'bias', { eps: number }, 'weight' | 'bias'>({
  name: 'LayerNorm',
  inputs: ['x', 'weight', 'bias'],
  forward(ctx, { x, weight, bias }, { eps }) {
    const y = ctx.out(x.shape);
    const [rows, D] = rowsAndWidth(x);
    ctx.kernels.layerNormFwd(ctx.ptr(x), ctx.ptr(weight), ctx.ptr(bias), ctx.ptr(y), rows, D, eps);
    return [y];
  },
  backward(ctx, [dy], { x, weight, bias }, _, { eps }) {
    const [dx, dWeight, dBias] = [ctx.out(x.shape), gradientOf(ctx, weight), gradientOf(ctx, bias)];
    const [rows, D] = rowsAndWidth(x);
    const pointers = [x, weight, dy, dx, dWeight, dBias].map((t) => ctx.ptr(t));
    ctx.scratch(24 * D, (total) => ctx.kernels.layerNormBwd(...pointers, rows, D, eps, total + 16 * D, total));
    return { x: dx, weight: dWeight, bias: dBias };
  },
});
