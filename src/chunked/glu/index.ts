/** Gated linear unit (Dauphin et al. 2016, https://arxiv.org/abs/1612.08083, eq. 1): y = value * sigmoid(gate). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { lastAxis, rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';

export interface GluOptions {
  form?: PlainForm;
}

/** Value and gate apart, or both in one tensor: value first, as in torch.nn.GLU. */
export type GluInputs = { value: tf.Tensor; gate: tf.Tensor } | { x: tf.Tensor };

/**
 * @param inputs value and gate, any equal shape; or x [..., 2D], whose first half is the value. float32
 * @returns value * sigmoid(gate): the shape of value, or [..., D]
 * @throws RangeError when the shapes differ or the last axis of x is odd
 */
export function glu(inputs: GluInputs, { form = 'auto' }: GluOptions = {}): tf.Tensor {
  return 'x' in inputs ? gluHalves(inputs.x, form) : gluPair(inputs, form);
}

function gluPair({ value, gate }: { value: tf.Tensor; gate: tf.Tensor }, form: PlainForm): tf.Tensor {
  checkGiven('glu', { value, gate });
  checkDtype('glu', { value, gate });
  checkShapes('glu', { gate: [gate, value.shape] });
  if (isFused('glu', form)) return fusedPair({ value, gate }, {})[0];
  return tf.tidy(() => tf.mul(value, tf.sigmoid(gate)));
}

function gluHalves(x: tf.Tensor, form: PlainForm): tf.Tensor {
  checkGiven('glu', { x });
  checkDtype('glu', { x });
  if (lastAxis('glu', x) % 2 !== 0)
    throw new RangeError(`glu: the last axis of x must be even (value, then gate), got shape [${x.shape}]`);
  if (isFused('glu', form)) return fusedHalves({ x }, {})[0];
  return tf.tidy(() => {
    const [value, gate] = tf.split(x, 2, -1);
    return tf.mul(value, tf.sigmoid(gate));
  });
}

const fusedPair = fusedOp<'value' | 'gate', object>({
  name: 'Glu',
  inputs: ['value', 'gate'],
  forward(ctx, { value, gate }) {
    const y = ctx.out(value.shape);
    ctx.kernels.gluFwd(ctx.ptr(value), ctx.ptr(gate), ctx.ptr(y), 1, size(value), 0);
    return [y];
  },
  backward(ctx, [dy], { value, gate }) {
    const [dValue, dGate] = [ctx.out(value.shape), ctx.out(gate.shape)];
    const pointers = [value, gate, dy, dValue, dGate].map((t) => ctx.ptr(t));
    ctx.kernels.gluBwd(...pointers, 1, size(value), 0);
    return { value: dValue, gate: dGate };
  },
});

const fusedHalves = fusedOp<'x', object>({
  name: 'GluHalves',
  inputs: ['x'],
  forward(ctx, { x }) {
    const [rows, width] = rowsAndWidth(x);
    const y = ctx.out([...x.shape.slice(0, -1), width / 2]);
    ctx.kernels.gluFwd(ctx.ptr(x), ctx.ptr(x) + 2 * width, ctx.ptr(y), rows, width / 2, 4 * width);
    return [y];
  },
  backward(ctx, [dy], { x }) {
    const [rows, width] = rowsAndWidth(x);
    const dx = ctx.out(x.shape);
    const [at, dAt] = [ctx.ptr(x), ctx.ptr(dx)];
    const pointers = [at, at + 2 * width, ctx.ptr(dy), dAt, dAt + 2 * width];
    ctx.kernels.gluBwd(...pointers, rows, width / 2, 4 * width);
    return { x: dx };
  },
});

const size = (x: tf.TensorInfo) => tf.util.sizeFromShape(x.shape);
