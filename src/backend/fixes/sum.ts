import * as tf from '@tensorflow/tfjs';
import { WasmContext } from '../../chunked/wasm/runtime.js';
import { type Fix, replaceKernel, stockKernel } from './replaceKernel.js';

/** Sum and mean of float32 over any axes, accumulated in float64 and without the transposed copy the stock kernels make. */
export const sum: Fix = {
  name: 'sum and mean on wasm',
  defect: 'one running float32 sum: a million times 0.1 gives 100958',
  backend: 'wasm',
  install() {
    replaceKernel(tf.Sum, 'wasm', (stock) => reduction(stock as tf.KernelFunc, () => 1));
    replaceKernel(tf.Mean, 'wasm', (stock) => reduction(stock as tf.KernelFunc, (count) => 1 / count));
  },
  installed: () => [tf.Sum, tf.Mean].every((name) => stockKernel(name, 'wasm') !== undefined),
};

/** A sum times a factor that depends on how many elements went into each; int32 and bool are left to the stock kernel. */
function reduction(stock: tf.KernelFunc, factor: (count: number) => number): tf.KernelFunc {
  return (params) => {
    const { x } = params.inputs as Record<'x', tf.TensorInfo>;
    const { axis, keepDims } = params.attrs as unknown as tf.SumAttrs;
    if (x.dtype !== 'float32') return stock(params);
    const axes = tf.util.parseAxisParam(axis, x.shape);
    const count = tf.util.sizeFromShape(axes.map((a) => x.shape[a]));
    const y = sumRuns(WasmContext.of(params.backend), x, runs(x.shape, axes), factor(count));
    const shape = x.shape.flatMap((n, a) => (axes.includes(a) ? (keepDims ? [1] : []) : [n]));
    return { ...y, shape };
  };
}

/** Neighbouring axes that are all summed, or all kept, joined into one: [size, summed] from the first axis to the last. */
function runs(shape: number[], axes: number[]): [number, boolean][] {
  const joined: [number, boolean][] = [];
  for (const [a, size] of shape.entries()) {
    const summed = axes.includes(a);
    const last = joined[joined.length - 1];
    if (last && last[1] === summed) last[0] *= size;
    else joined.push([size, summed]);
  }
  return joined;
}

/** One pass for each summed run, the innermost first; the factor goes into the last. */
function sumRuns(ctx: WasmContext, x: tf.TensorInfo, axes: [number, boolean][], factor: number): tf.TensorInfo {
  const passes = axes.flatMap(([, summed], a) => (summed ? [a] : [])).reverse();
  if (passes.length === 0) passes.push(axes.push([1, true]) - 1); // no axis, or a scalar: one addend for each output
  let from = x;
  for (const [i, a] of passes.entries()) {
    const size = (part: [number, boolean][]) => part.reduce((product, [n]) => product * n, 1);
    const [outer, inner] = [size(axes.slice(0, a)), size(axes.slice(a + 1))];
    const to = ctx.out([outer * inner]);
    const scale = i === passes.length - 1 ? factor : 1;
    ctx.kernels.fixSum(ctx.ptr(from), ctx.ptr(to), outer, axes[a][0], inner, scale);
    if (from !== x) ctx.backend.disposeData(from.dataId);
    axes[a] = [1, false];
    from = to;
  }
  return from;
}
