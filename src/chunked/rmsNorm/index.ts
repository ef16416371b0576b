/** Root-mean-square norm (Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467, eq. 4), and the same with an output gate. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkOneOf, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { lastAxis, rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import { checkEps, rootNorm, withRowSums } from './rootNorm.js';

export interface RmsNormOptions {
  /** Added to the mean square inside the root; default 1e-5. */
  eps?: number;
  form?: PlainForm;
}

/**
 * y = x * (mean(x^2) + eps)^-1/2 * weight over the last axis. The mean square is a float32: |x| must stay below 1e18.
 * @param inputs x [..., D]; weight [D], ones if absent; float32
 * @returns same shape as x
 * @throws RangeError for a weight of another width or a negative eps
 */
export function rmsNorm(
  { x, weight }: { x: tf.Tensor; weight?: tf.Tensor },
  { eps = 1e-5, form = 'auto' }: RmsNormOptions = {},
): tf.Tensor {
  const D = lastAxis('rmsNorm', x);
  checkDtype('rmsNorm', { x, weight });
  checkShapes('rmsNorm', { weight: [weight, [D]] });
  checkEps('rmsNorm', eps);
  if (isFused('rmsNorm', form)) return rootNorm({ x, weight }, { meanFactor: 1 / D, eps })[0];
  return tf.tidy(() => plainRmsNorm(x, weight, eps));
}

export interface GatedRmsNormOptions extends RmsNormOptions {
  /** Of the gate; default 'silu' (GLA, Gated DeltaNet); 'sigmoid' in Kimi Linear. */
  activation?: 'silu' | 'sigmoid';
}

/**
 * y = rmsNorm(x, weight) * act(gate): the output gate of GLA (Yang et al. 2023, https://arxiv.org/abs/2312.06635, section 4.4)
 * and of Kimi Delta Attention (https://arxiv.org/abs/2510.26692, eq. 10).
 * @param inputs x [..., D]; gate, same shape as x, before its activation; weight [D], ones if absent; float32
 * @returns same shape as x
 * @throws RangeError for a gate of another shape, a weight of another width, a negative eps or an unknown activation
 */
export function gatedRmsNorm(
  { x, gate, weight }: { x: tf.Tensor; gate: tf.Tensor; weight?: tf.Tensor },
  { eps = 1e-5, activation = 'silu', form = 'auto' }: GatedRmsNormOptions = {},
): tf.Tensor {
  const D = lastAxis('gatedRmsNorm', x);
  checkDtype('gatedRmsNorm', { x, gate, weight });
  checkShapes('gatedRmsNorm', { gate: [gate, x.shape], weight: [weight, [D]] });
  checkEps('gatedRmsNorm', eps);
  checkOneOf('gatedRmsNorm', 'activation', activation, ['silu', 'sigmoid']);
  if (isFused('gatedRmsNorm', form)) return fusedGated({ x, gate, weight }, { eps, silu: activation === 'silu' })[0];
  return tf.tidy(() => {
    const s = tf.sigmoid(gate);
    return tf.mul(plainRmsNorm(x, weight, eps), activation === 'silu' ? tf.mul(gate, s) : s);
  });
}

function plainRmsNorm(x: tf.Tensor, weight: tf.Tensor | undefined, eps: number): tf.Tensor {
  const normed = tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), eps)));
  return weight ? tf.mul(normed, weight) : normed;
}

const fusedGated = fusedOp<'x' | 'gate' | 'weight', { eps: number; silu: boolean }, 'weight'>({
  name: 'GatedRmsNorm',
  inputs: ['x', 'gate', 'weight'],
  forward(ctx, { x, gate, weight }, { eps, silu }) {
    const y = ctx.out(x.shape);
    const [rows, D] = rowsAndWidth(x);
    ctx.kernels.gatedRmsNormFwd(ctx.ptr(x), ctx.ptr(gate), ctx.ptr(weight), ctx.ptr(y), rows, D, eps, Number(silu));
    return [y];
  },
  backward(ctx, [dy], { x, gate, weight }, _, { eps, silu }) {
    const [dx, dGate] = [ctx.out(x.shape), ctx.out(x.shape)];
    const dWeight = gradientOf(ctx, weight);
    const [rows, D] = rowsAndWidth(x);
    const read = [x, gate, weight, dy].map((t) => ctx.ptr(t));
    const write = [dx, dGate, dWeight].map((t) => ctx.ptr(t));
    withRowSums(ctx, D, (part, total) =>
      ctx.kernels.gatedRmsNormBwd(...read, ...write, rows, D, eps, Number(silu), part, total),
    );
    return { x: dx, gate: dGate, weight: dWeight };
  },
});
