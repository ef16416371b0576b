import * as tf from '@tensorflow/tfjs';
import { type Fix, replaceKernel, stockKernel } from './replaceKernel.js';

/** The five stock kernels that XNNPACK computes; the others broadcast by themselves at any rank. */
const KERNELS = [tf.Add, tf.Sub, tf.Multiply, tf.RealDiv, tf.SquaredDifference];
const MAX_RANK = 6;

export const broadcast: Fix = {
  name: 'arithmetic at rank 7 and more on wasm',
  defect: 'add, sub, mul, div and squaredDifference return uninitialised memory and only log a line',
  backend: 'wasm',
  install() {
    for (const name of KERNELS) replaceKernel(name, 'wasm', (stock) => joiningAxes(name, stock as tf.KernelFunc));
  },
  installed: () => KERNELS.every((name) => stockKernel(name, 'wasm') !== undefined),
};

/** Hands the stock kernel an equal problem of fewer axes, and throws where there is none. */
function joiningAxes(name: string, stock: tf.KernelFunc): tf.KernelFunc {
  return (params) => {
    const { a, b } = params.inputs as Record<'a' | 'b', tf.TensorInfo>;
    if (a.shape.length <= MAX_RANK && b.shape.length <= MAX_RANK) return stock(params);
    const shape = tf.backend_util.assertAndGetBroadcastShape(a.shape, b.shape);
    const [aShape, bShape] = joinAxes(a.shape, b.shape);
    if (aShape.length > MAX_RANK)
      throw new RangeError(
        `${name}: the wasm backend broadcasts over at most ${MAX_RANK} axes, got [${a.shape}] and [${b.shape}], which need ${aShape.length}; reshape to fewer axes or tile one of them first`,
      );
    const inputs = { a: { ...a, shape: aShape }, b: { ...b, shape: bShape } };
    return { ...(stock({ ...params, inputs }) as tf.TensorInfo), shape };
  };
}

/** Joins neighbouring axes over which both go on, or the same one is repeated; drops axes of size 1 in both. */
export function joinAxes(aShape: number[], bShape: number[]): [number[], number[]] {
  const rank = Math.max(aShape.length, bShape.length);
  const at = (shape: number[], i: number) => shape[i - rank + shape.length] ?? 1;
  const [joinedA, joinedB]: [number[], number[]] = [[], []];
  let before = '';
  for (let i = 0; i < rank; i++) {
    const [m, n] = [at(aShape, i), at(bShape, i)];
    if (m === 1 && n === 1) continue;
    const pattern = m === n ? 'both' : m === 1 ? 'b' : 'a';
    if (pattern === before) {
      joinedA[joinedA.length - 1] *= m;
      joinedB[joinedB.length - 1] *= n;
    } else {
      joinedA.push(m);
      joinedB.push(n);
    }
    before = pattern;
  }
  return [joinedA, joinedB];
}
