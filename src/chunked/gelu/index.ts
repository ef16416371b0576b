/** GELU (Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415): y = x * Phi(x), Phi the normal distribution function. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkOneOf } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { plainErf, plainTanh } from './plain.js';

export interface GeluOptions {
  /** `none` (default): Phi itself; `tanh`: the paper's approximation 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))). */
  approximate?: 'none' | 'tanh';
  form?: PlainForm;
}

/**
 * y = x * Phi(x). With `none` the kernel is right to 5e-7 of y itself, also in the negative tail, down to where Phi leaves float32; the
 * plain form to 2e-7 absolute times max(1, |x|).
 * @param inputs x of any shape, float32
 * @returns same shape as x
 * @throws RangeError for an unknown approximation
 */
export function gelu({ x }: { x: tf.Tensor }, { approximate = 'none', form = 'auto' }: GeluOptions = {}): tf.Tensor {
  checkDtype('gelu', { x });
  checkOneOf('gelu', 'approximate', approximate, ['none', 'tanh']);
  if (isFused('gelu', form)) return fused({ x }, { tanh: approximate === 'tanh' })[0];
  return tf.tidy(() => (approximate === 'tanh' ? plainTanh(x) : plainErf(x)));
}

const fused = fusedOp<'x', { tanh: boolean }>({
  name: 'Gelu',
  inputs: ['x'],
  forward(ctx, { x }, { tanh }) {
    const y = ctx.out(x.shape);
    ctx.kernels.geluFwd(ctx.ptr(x), ctx.ptr(y), tf.util.sizeFromShape(x.shape), Number(tanh));
    return [y];
  },
  backward(ctx, [dy], { x }, _, { tanh }) {
    const dx = ctx.out(x.shape);
    ctx.kernels.geluBwd(ctx.ptr(x), ctx.ptr(dy), ctx.ptr(dx), tf.util.sizeFromShape(x.shape), Number(tanh));
    return { x: dx };
  },
});
