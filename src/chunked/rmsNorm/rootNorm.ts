/** What the norms share: checks, and the kernel behind both the RMS and the L2 norm. */
import { rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import type { WasmContext } from '../wasm/runtime.js';

export function checkEps(op: string, eps: number): void {
  if (!(eps >= 0 && eps < Number.POSITIVE_INFINITY))
    throw new RangeError(`${op}: eps must be zero or a positive number, got ${eps}`);
}

/** Scratch for a gradient summed over rows: `D` floats for the block at hand, `D` doubles for the total. */
export function withRowSums<R>(ctx: WasmContext, D: number, body: (part: number, total: number) => R): R {
  return ctx.scratch(12 * D, (total) => body(total + 8 * D, total));
}

/** y = x * (meanFactor * sum(x^2) + eps)^-1/2 * weight along the last axis; weight may be absent. */
export const rootNorm = fusedOp<'x' | 'weight', { meanFactor: number; eps: number }, 'weight'>({
  name: 'RootNorm',
  inputs: ['x', 'weight'],
  forward(ctx, { x, weight }, { meanFactor, eps }) {
    const y = ctx.out(x.shape);
    const [rows, D] = rowsAndWidth(x);
    ctx.kernels.rmsNormFwd(ctx.ptr(x), ctx.ptr(weight), ctx.ptr(y), rows, D, meanFactor, eps);
    return [y];
  },
  backward(ctx, [dy], { x, weight }, _, { meanFactor, eps }) {
    const dx = ctx.out(x.shape);
    const dWeight = gradientOf(ctx, weight);
    const [rows, D] = rowsAndWidth(x);
    const read = [x, weight, dy].map((t) => ctx.ptr(t));
    const write = [dx, dWeight].map((t) => ctx.ptr(t));
    withRowSums(ctx, D, (part, total) =>
      ctx.kernels.rmsNormBwd(...read, ...write, rows, D, meanFactor, eps, part, total),
    );
    return { x: dx, weight: dWeight };
  },
});
