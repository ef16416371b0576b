/** The kernel of diagonal modes on the wasm backend: shapes and memory; the arithmetic is in kernel.as.ts. */
import type * as tf from '@tensorflow/tfjs';
import { fusedOp } from '../wasm/fusedOp.js';
import type { VandermondeInputs } from './index.js';

interface Attrs {
  length: number;
  factor: number;
}

export function fusedVandermonde(inputs: VandermondeInputs, attrs: Attrs): tf.Tensor {
  return fused({ ...inputs }, attrs)[0];
}

const fused = fusedOp<'zeta' | 'w', Attrs>({
  name: 'Vandermonde',
  inputs: ['zeta', 'w'],
  forward(ctx, { zeta, w }, { length, factor }) {
    const [H, M] = zeta.shape;
    const kernel = ctx.out([H, length]);
    const { J, rows } = blocks(length);
    const [bases, powers, anchors] = [32 * M, 8 * M * J, 8 * M * rows];
    ctx.scratch(bases + powers + anchors + 4 * J * rows, (at) => {
      const parts = [at, at + bases, at + bases + powers, at + bases + powers + anchors];
      ctx.kernels.vandermondeFwd(...[zeta, w, kernel].map((x) => ctx.ptr(x)), H, M, length, J, factor, ...parts);
    });
    return [kernel];
  },
  backward(ctx, [gKernel], { zeta, w }, _, { length, factor }) {
    const [H, M] = zeta.shape;
    const [gZeta, gW] = [ctx.out(zeta.shape), ctx.out(w.shape)];
    const { J, rows } = blocks(length);
    const modes = 4 * Math.ceil(M / 4);
    const [bases, powers, upstream] = [32 * M, 16 * modes * J, 4 * J * rows];
    ctx.scratch(bases + powers + upstream + 16 * modes * rows, (at) => {
      const parts = [at, at + bases, at + bases + powers, at + bases + powers + upstream];
      const pointers = [zeta, w, gKernel, gZeta, gW].map((x) => ctx.ptr(x));
      ctx.kernels.vandermondeBwd(...pointers, H, M, length, J, factor, ...parts);
    });
    return { zeta: gZeta, w: gW };
  },
});

/** Taps of a block and padded number of blocks: about equal, so that there are few exponentials. */
function blocks(length: number): { J: number; rows: number } {
  const J = Math.max(8, 2 ** Math.round(Math.log2(length) / 2));
  return { J, rows: 4 * Math.ceil(length / J / 4) };
}
