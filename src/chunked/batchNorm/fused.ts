/** Batch norm as kernels on the wasm backend: shapes and memory; the arithmetic is in kernel.as.ts. */
import type * as tf from '@tensorflow/tfjs';
import { rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import type { BatchNormInputs } from './index.js';

interface Attrs {
  training: boolean;
  eps: number;
}

export function fusedBatchNorm(inputs: BatchNormInputs, attrs: Attrs): tf.Tensor {
  const [y, mean, variance] = fused({ ...inputs }, attrs);
  mean.dispose();
  variance.dispose();
  return y;
}

/** Outputs y and the statistics it was made with: means in two floats each (see the kernel), variances. */
const fused = fusedOp<'x' | 'weight' | 'bias' | 'runningMean' | 'runningVar', Attrs, 'weight' | 'bias'>({
  name: 'BatchNorm',
  inputs: ['x', 'weight', 'bias', 'runningMean', 'runningVar'],
  saveOutputs: true,
  forward(ctx, { x, weight, bias, runningMean, runningVar }, { training, eps }) {
    const [rows, D] = rowsAndWidth(x);
    const [y, mean, variance] = [ctx.out(x.shape), ctx.out([2, D]), ctx.out([D])];
    const [meanAt, varianceAt] = [ctx.ptr(mean), ctx.ptr(variance)];
    const read = [x, weight, bias].map((t) => ctx.ptr(t));
    ctx.scratch(24 * D, (total) => {
      const part = total + 16 * D;
      if (training) ctx.kernels.batchNormStatistics(ctx.ptr(x), meanAt, varianceAt, rows, D, part, total);
      else ctx.kernels.batchNormGiven(ctx.ptr(runningMean), ctx.ptr(runningVar), meanAt, varianceAt, D);
      ctx.kernels.batchNormFwd(...read, meanAt, varianceAt, ctx.ptr(y), rows, D, eps, part);
    });
    return [y, mean, variance];
  },
  backward(ctx, [dy], { x, weight, bias }, [, mean, variance], { training, eps }) {
    const [rows, D] = rowsAndWidth(x);
    const [dx, dWeight, dBias] = [ctx.out(x.shape), gradientOf(ctx, weight), gradientOf(ctx, bias)];
    const [dMean, dVar] = [ctx.out([D]), ctx.out([D])];
    const pointers = [x, weight, dy, mean, variance, dx, dWeight, dBias].map((t) => ctx.ptr(t));
    ctx.scratch(28 * D, (total) =>
      ctx.kernels.batchNormBwd(...pointers, rows, D, eps, Number(training), total + 16 * D, total),
    );
    ctx.kernels.batchNormCopy(ctx.ptr(mean), ctx.ptr(variance), ctx.ptr(dMean), ctx.ptr(dVar), D);
    return { x: dx, weight: dWeight, bias: dBias, runningMean: dMean, runningVar: dVar };
  },
});
