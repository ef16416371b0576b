/** Tensors for tests: seeded randoms, gradients of an op, and comparison with a readable report. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'vitest';

export { outputsAndGrads } from './grads.js';

/** mulberry32: a small seeded generator of floats in [0, 1). */
export function random(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `n` standard normal floats, rounded to float32. */
export function normal(seed: number, n: number, scale = 1): Float32Array {
  const next = random(seed);
  return Float32Array.from(
    { length: n },
    () => scale * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
  );
}

/** Standard normal tensors of the given shapes, each from its own seed. */
export function randomTensors(seed: number, ...shapes: number[][]): tf.Tensor[] {
  return shapes.map((shape, i) => tf.tensor(normal(seed * 1000 + i, tf.util.sizeFromShape(shape)), shape, 'float32'));
}

/**
 * `max |got - want| <= tolerance * max(terms, max |want|)`, with a report that names the worst element.
 * `terms` (default 1): the size of what is summed, for sums whose terms cancel.
 * NaN or Infinity where the reference is finite fails; equal infinities pass.
 */
export function expectClose(
  name: string,
  got: tf.Tensor | ArrayLike<number>,
  want: tf.Tensor | ArrayLike<number>,
  tolerance: number,
  terms = 1,
): void {
  const [a, b] = [values(got), values(want)];
  if (got instanceof tf.Tensor && want instanceof tf.Tensor) expect(got.shape, `${name}: shape`).toEqual(want.shape);
  expect(a.length, `${name}: length`).toBe(b.length);
  let [scale, worst, at] = [terms, 0, 0];
  for (let i = 0; i < b.length; i++) if (Number.isFinite(b[i])) scale = Math.max(scale, Math.abs(b[i]));
  for (let i = 0; i < b.length; i++) {
    const error = a[i] === b[i] ? 0 : Math.abs(a[i] - b[i]);
    if (!(error <= worst)) [worst, at] = [Number.isNaN(error) ? Number.POSITIVE_INFINITY : error, i];
  }
  const report = `${name}: worst error ${worst.toExponential(2)} at ${at} (got ${a[at]}, want ${b[at]}), scale ${scale.toPrecision(3)}, tolerance ${tolerance}`;
  expect(worst <= tolerance * scale, report).toBe(true);
}

export function values(x: tf.Tensor | ArrayLike<number>): ArrayLike<number> {
  return x instanceof tf.Tensor ? x.dataSync() : x;
}
