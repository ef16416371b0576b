/** w = c b psi, the weights of a convolution's taps. */
import type * as tf from '@tensorflow/tfjs';
import { fusedOp } from '../wasm/fusedOp.js';
import { hasFusedKernels } from '../wasm/runtime.js';
import { joined, parts, times } from './complex.js';
import { inputWeights } from './states.js';

/** [H, M, 2] of c and psi [H, M, 2] and b [R, M, 2]. */
export function tapWeights(inputs: Record<'c' | 'psi' | 'b', tf.Tensor>): tf.Tensor {
  if (hasFusedKernels('diagonalSsm')) return fused(inputs, {})[0];
  return joined(times(parts(inputs.c), inputWeights(inputs)));
}

const fused = fusedOp<'c' | 'psi' | 'b', object>({
  name: 'DiagonalSsmWeights',
  inputs: ['c', 'psi', 'b'],
  forward(ctx, { c, psi, b }) {
    const [H, M] = c.shape;
    const w = ctx.out(c.shape);
    const tensors = [c, psi, b, w].map((x) => ctx.ptr(x));
    ctx.scratch(ctx.kernels.diagonalSsmWeightsScratch(M), (scratch) =>
      ctx.kernels.diagonalSsmWeightsFwd(...tensors, H, M, b.shape[0], scratch),
    );
    return [w];
  },
  backward(ctx, [dw], { c, psi, b }) {
    const [H, M] = c.shape;
    const [dc, dPsi, db] = [c, psi, b].map((x) => ctx.out(x.shape));
    const tensors = [c, psi, b, dw, dc, dPsi, db].map((x) => ctx.ptr(x));
    ctx.scratch(ctx.kernels.diagonalSsmWeightsScratch(M), (scratch) =>
      ctx.kernels.diagonalSsmWeightsBwd(...tensors, H, M, b.shape[0], scratch),
    );
    return { c: dc, psi: dPsi, b: db };
  },
});
