/** SwiGLU: y = silu(gate) * up (Shazeer 2020, https://arxiv.org/abs/2002.05202, eq. 6 between the projections). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedOp } from '../wasm/fusedOp.js';

export interface SwiGluOptions {
  form?: PlainForm;
}

/**
 * @param inputs gate and up, any equal shape, float32
 * @returns silu(gate) * up, same shape
 * @throws RangeError when the shapes differ
 */
export function swiGlu(
  { gate, up }: { gate: tf.Tensor; up: tf.Tensor },
  { form = 'auto' }: SwiGluOptions = {},
): tf.Tensor {
  checkDtype('swiGlu', { gate, up });
  checkShapes('swiGlu', { up: [up, gate.shape] });
  if (isFused('swiGlu', form)) return fused({ gate, up }, {})[0];
  return tf.tidy(() => tf.mul(tf.mul(gate, tf.sigmoid(gate)), up));
}

const fused = fusedOp<'gate' | 'up', object>({
  name: 'SwiGlu',
  inputs: ['gate', 'up'],
  forward(ctx, { gate, up }) {
    const y = ctx.out(gate.shape);
    ctx.kernels.swiGluFwd(ctx.ptr(gate), ctx.ptr(up), ctx.ptr(y), size(gate));
    return [y];
  },
  backward(ctx, [dy], { gate, up }) {
    const [dGate, dUp] = [ctx.out(gate.shape), ctx.out(gate.shape)];
    ctx.kernels.swiGluBwd(ctx.ptr(gate), ctx.ptr(up), ctx.ptr(dy), ctx.ptr(dGate), ctx.ptr(dUp), size(gate));
    return { gate: dGate, up: dUp };
  },
});

const size = (x: tf.TensorInfo) => tf.util.sizeFromShape(x.shape);
