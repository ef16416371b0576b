/** SwiGLU: y = silu(gate) * up (Shazeer 2020, https://arxiv.org/abs/2002.05202, eq. 6 between the projections). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { lastAxis, rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';

export interface SwiGluOptions {
  form?: PlainForm;
}

/** Gate and up apart, or both in one tensor: gate first. */
export type SwiGluInputs = { gate: tf.Tensor; up: tf.Tensor } | { x: tf.Tensor };

/**
 * @param inputs gate and up, any equal shape; or x [..., 2D], whose first half is the gate. float32
 * @returns silu(gate) * up: the shape of gate, or [..., D]
 * @throws RangeError when the shapes differ or the last axis of x is odd
 */
export function swiGlu(inputs: SwiGluInputs, { form = 'auto' }: SwiGluOptions = {}): tf.Tensor {
  return 'x' in inputs ? swiGluHalves(inputs.x, form) : swiGluPair(inputs, form);
}

function swiGluPair({ gate, up }: { gate: tf.Tensor; up: tf.Tensor }, form: PlainForm): tf.Tensor {
  checkDtype('swiGlu', { gate, up });
  checkShapes('swiGlu', { up: [up, gate.shape] });
  if (isFused('swiGlu', form)) return fusedPair({ gate, up }, {})[0];
  return tf.tidy(() => plain(gate, up));
}

function swiGluHalves(x: tf.Tensor, form: PlainForm): tf.Tensor {
  checkGiven('swiGlu', { x });
  checkDtype('swiGlu', { x });
  if (lastAxis('swiGlu', x) % 2 !== 0)
    throw new RangeError(`swiGlu: the last axis of x must be even (gate, then up), got shape [${x.shape}]`);
  if (isFused('swiGlu', form)) return fusedHalves({ x }, {})[0];
  return tf.tidy(() => {
    const [gate, up] = tf.split(x, 2, -1);
    return plain(gate, up);
  });
}

const plain = (gate: tf.Tensor, up: tf.Tensor): tf.Tensor => tf.mul(tf.mul(gate, tf.sigmoid(gate)), up);

const fusedPair = fusedOp<'gate' | 'up', object>({
  name: 'SwiGlu',
  inputs: ['gate', 'up'],
  forward(ctx, { gate, up }) {
    const y = ctx.out(gate.shape);
    ctx.kernels.swiGluFwd(ctx.ptr(gate), ctx.ptr(up), ctx.ptr(y), 1, size(gate), 0);
    return [y];
  },
  backward(ctx, [dy], { gate, up }) {
    const [dGate, dUp] = [ctx.out(gate.shape), ctx.out(gate.shape)];
    const pointers = [gate, up, dy, dGate, dUp].map((t) => ctx.ptr(t));
    ctx.kernels.swiGluBwd(...pointers, 1, size(gate), 0);
    return { gate: dGate, up: dUp };
  },
});

const fusedHalves = fusedOp<'x', object>({
  name: 'SwiGluHalves',
  inputs: ['x'],
  forward(ctx, { x }) {
    const [rows, width] = rowsAndWidth(x);
    const y = ctx.out([...x.shape.slice(0, -1), width / 2]);
    ctx.kernels.swiGluFwd(ctx.ptr(x), ctx.ptr(x) + 2 * width, ctx.ptr(y), rows, width / 2, 4 * width);
    return [y];
  },
  backward(ctx, [dy], { x }) {
    const [rows, width] = rowsAndWidth(x);
    const dx = ctx.out(x.shape);
    const [at, dAt] = [ctx.ptr(x), ctx.ptr(dx)];
    const pointers = [at, at + 2 * width, ctx.ptr(dy), dAt, dAt + 2 * width];
    ctx.kernels.swiGluBwd(...pointers, rows, width / 2, 4 * width);
    return { x: dx };
  },
});

const size = (x: tf.TensorInfo) => tf.util.sizeFromShape(x.shape);
