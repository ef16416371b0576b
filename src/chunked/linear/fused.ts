/** The projection as kernels on the wasm backend, forward and backward. */
import type * as tf from '@tensorflow/tfjs';
import { multiply } from '../product/index.js';
import { rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';
import type { WasmContext } from '../wasm/runtime.js';
import type { LinearInputs } from './index.js';

export function fusedLinear(inputs: LinearInputs): tf.Tensor {
  return fused({ ...inputs }, {})[0];
}

const fused = fusedOp<'x' | 'weight' | 'bias', object, 'bias'>({
  name: 'Linear',
  inputs: ['x', 'weight', 'bias'],
  forward(ctx, { x, weight, bias }) {
    const [rows, I] = rowsAndWidth(x);
    const O = weight.shape[0];
    const y = ctx.out([...x.shape.slice(0, -1), O]);
    multiply(ctx, ctx.ptr(x), ctx.ptr(weight), ctx.ptr(bias), ctx.ptr(y), { M: rows, N: O, K: I, transposeB: true });
    return [y];
  },
  backward: {
    x(ctx, [dy], { x, weight }) {
      const [rows, I] = rowsAndWidth(x);
      const dx = ctx.out(x.shape);
      multiply(ctx, ctx.ptr(dy), ctx.ptr(weight), 0, ctx.ptr(dx), { M: rows, N: I, K: weight.shape[0] });
      return dx;
    },
    weight: (ctx, [dy], { x }) => weightGradient(ctx, dy, x),
    bias(ctx, [dy]) {
      const [rows, O] = rowsAndWidth(dy);
      const dBias = ctx.out([O]);
      ctx.kernels.fixSum(ctx.ptr(dy), ctx.ptr(dBias), 1, rows, O, 1);
      return dBias;
    },
  },
});

/** dW = dy^T x. */
export function weightGradient(ctx: WasmContext, dy: tf.TensorInfo, x: tf.TensorInfo): tf.TensorInfo {
  const [rows, I] = rowsAndWidth(x);
  const O = dy.shape[dy.shape.length - 1];
  const dWeight = ctx.out([O, I]);
  multiply(ctx, ctx.ptr(dy), ctx.ptr(x), 0, ctx.ptr(dWeight), { M: O, N: I, K: rows, transposeA: true });
  return dWeight;
}
