/** The convolution as kernels on the wasm backend: shapes and memory; the arithmetic is in the *.as.ts. */
import type * as tf from '@tensorflow/tfjs';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import type { WasmContext } from '../wasm/runtime.js';
import type { LongConvolutionInputs } from './index.js';

export function fusedLongConvolution(inputs: LongConvolutionInputs): tf.Tensor {
  return fused({ ...inputs }, {})[0];
}

const fused = fusedOp<'u' | 'kernel' | 'kernelReverse', object, 'kernelReverse'>({
  name: 'LongConvolution',
  inputs: ['u', 'kernel', 'kernelReverse'],
  forward(ctx, { u, kernel, kernelReverse }) {
    const y = ctx.out(u.shape);
    const pointers = [u, kernel, kernelReverse, y].map((x) => ctx.ptr(x));
    withTransforms(ctx, u, 2, (sizes, parts) => ctx.kernels.longConvolutionFwd(...pointers, ...sizes, ...parts));
    return [y];
  },
  backward(ctx, [gY], { u, kernel, kernelReverse }) {
    const [gU, gKernel, gReverse] = [ctx.out(u.shape), ctx.out(kernel.shape), gradientOf(ctx, kernelReverse)];
    const pointers = [u, kernel, kernelReverse, gY, gU, gKernel, gReverse].map((x) => ctx.ptr(x));
    withTransforms(ctx, u, 4, (sizes, parts) => ctx.kernels.longConvolutionBwd(...pointers, ...sizes, ...parts));
    return { u: gU, kernel: gKernel, kernelReverse: gReverse };
  },
});

/** Calls with B, T, H, N and scratch for as many transforms, behind the twiddles: the second has room for one pair more (spectra). */
function withTransforms(
  ctx: WasmContext,
  { shape: [B, T, H] }: tf.TensorInfo,
  count: number,
  body: (sizes: number[], parts: number[]) => void,
): void {
  const N = transformSize(T);
  const [table, transform] = [8 * N, 32 * N];
  ctx.scratch(table + count * transform + 64, (at) => {
    const parts = Array.from({ length: count }, (_, i) => at + table + i * transform + (i > 1 ? 64 : 0));
    ctx.kernels.longConvolutionTwiddles(at, N);
    body([B, T, H, N], [at, ...parts]);
  });
}

/** The smallest power of two that holds 2 T - 1 lags. */
const transformSize = (T: number) => Math.max(2, 2 ** Math.ceil(Math.log2(2 * T - 1)));
