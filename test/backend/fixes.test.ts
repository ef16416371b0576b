import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { joinAxes } from '../../src/backend/fixes/broadcast.js';
import { FIXES, installFixes } from '../../src/backend/fixes/index.js';
import { useBackend } from '../../src/index.js';
import { expectClose, normal, randomTensors } from '../support/tensors.js';
import { withStockGradient, withStockKernel } from './stock.js';

const RUNS = { numRuns: 60 };
const scalar = (x: tf.Tensor) => tf.tidy(() => x.dataSync()[0]);

afterEach(() => tf.disposeVariables());

test('every fix is installed by useBackend, and a second time changes nothing', async () => {
  expect(FIXES.filter((fix) => !fix.installed()).map((fix) => fix.name)).toEqual([]);
  const kernels = ['Sum', 'Mean', 'Log1p', 'Add', 'ClipByValue', 'UnsortedSegmentSum'];
  const before = kernels.map((name) => tf.getKernel(name, 'wasm'));
  installFixes('wasm');
  await useBackend('wasm');
  expect(kernels.map((name) => tf.getKernel(name, 'wasm'))).toEqual(before);
});

describe('cumsum gradient', () => {
  const gradient = (x: tf.Tensor, dy: tf.Tensor, axis: number, exclusive = false, reverse = false) =>
    tf.tidy(() => tf.grad((v: tf.Tensor) => tf.sum(tf.mul(tf.cumsum(v, axis, exclusive, reverse), dy)))(x));

  test('the stock one is transposed: silently on a square, with a throw otherwise', () => {
    const dy = tf.tensor2d([1, 2, 3, 4], [2, 2]);
    const wrong = withStockGradient('Cumsum', () => gradient(tf.ones([2, 2]), dy, 0));
    expect([...wrong.dataSync()]).toEqual([4, 3, 6, 4]); // the transpose of what follows
    expect([...gradient(tf.ones([2, 2]), dy, 0).dataSync()]).toEqual([4, 6, 3, 4]);
    expect(() => withStockGradient('Cumsum', () => gradient(tf.ones([2, 3]), tf.ones([2, 3]), 0))).toThrow();
  });

  test('is the adjoint of cumsum at every axis', () => {
    const shapes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(
        shapes,
        fc.nat(3),
        fc.boolean(),
        fc.boolean(),
        fc.integer(),
        (shape, at, exclusive, reverse, seed) => {
          const axis = at % shape.length;
          const [x, u, dy] = randomTensors(seed, shape, shape, shape);
          const dx = gradient(x, dy, axis, exclusive, reverse);
          // cumsum is linear, so <dx, u> must equal <dy, cumsum(u)> for every u
          const left = scalar(tf.sum(tf.mul(dx, u)));
          const right = scalar(tf.sum(tf.mul(dy, tf.cumsum(u, axis, exclusive, reverse))));
          expect(Math.abs(left - right)).toBeLessThan(1e-4);
        },
      ),
      RUNS,
    );
  });
});

describe('unsortedSegmentSum on wasm', () => {
  const table = () => tf.tensor2d([1, 2, 3, 4, 5, 6], [3, 2]);
  const embed = (x: tf.Tensor) => tf.gather(x, tf.tensor1d([0, 2, 2, 2], 'int32'));

  test('without it the gradient of gather throws; with it repeated rows add up', () => {
    const gradient = () => tf.grad((x: tf.Tensor) => tf.sum(embed(x)))(table());
    expect(() => withStockKernel('UnsortedSegmentSum', gradient)).toThrow('UnsortedSegmentSum');
    expect([...gradient().dataSync()]).toEqual([1, 1, 0, 0, 3, 3]);
  });

  test('Adam trains an embedding', () => {
    const weights = tf.variable(table());
    const step = () =>
      tf.train.adam(0.1).minimize(() => tf.sum(tf.square(embed(weights))) as tf.Scalar, true, [weights]);
    expect(() => withStockKernel('UnsortedSegmentSum', step)).toThrow('UnsortedSegmentSum');
    const before = [...weights.dataSync()];
    step()?.dispose();
    const moved = [...weights.dataSync()].map((w, i) => before[i] - w);
    expectClose('steps', moved, [0.1, 0.1, 0, 0, 0.1, 0.1], 1e-5);
  });

  test('equals a plain loop, drops ids out of range, keeps int32', () => {
    const ids = fc.array(fc.integer({ min: -2, max: 6 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(ids, fc.integer({ min: 1, max: 9 }), fc.integer(), fc.boolean(), (list, width, seed, whole) => {
        const values = normal(seed, list.length * width).map((v) => (whole ? Math.round(v * 10) : v));
        const want = new Float64Array(5 * width);
        for (const [r, id] of list.entries())
          if (id >= 0 && id < 5) for (let i = 0; i < width; i++) want[id * width + i] += values[r * width + i];
        const x = tf.tensor2d(values, [list.length, width], whole ? 'int32' : 'float32');
        const y = tf.unsortedSegmentSum(x, tf.tensor1d(list, 'int32'), 5);
        expect(y.dtype).toBe(x.dtype);
        expectClose('y', y.dataSync(), want, 1e-6);
      }),
      RUNS,
    );
  });

  test('refuses ids that do not fit', () => {
    expect(() => tf.unsortedSegmentSum(tf.ones([3, 2]), tf.tensor1d([0, 1], 'int32'), 2)).toThrow(
      'unsortedSegmentSum: segmentIds must have shape [3], got [2]',
    );
  });
});

describe('log1p on wasm', () => {
  test('the stock one loses small arguments', () => {
    expect(withStockKernel('Log1p', () => scalar(tf.log1p(tf.scalar(1e-8))))).toBe(0);
    expect(scalar(tf.log1p(tf.scalar(1e-8)))).toBeCloseTo(1e-8, 15);
  });

  test('is right to 2e-7 of the value, over all magnitudes and at the edges', () => {
    const x = Float32Array.from({ length: 400 }, (_, i) => (i % 2 ? 1 : -1) * 10 ** (i / 10 - 38)).filter(
      (v) => v > -1,
    );
    const got = tf.log1p(tf.tensor1d(x)).dataSync();
    for (const [i, v] of x.entries()) {
      const want = Math.log1p(v);
      expect(Math.abs(got[i] - want), `log1p(${v}) = ${got[i]}, want ${want}`).toBeLessThanOrEqual(
        2e-7 * Math.abs(want) + 2e-45,
      );
    }
    const edges = tf.log1p(tf.tensor1d([-1, -2, Number.POSITIVE_INFINITY, Number.NaN, 0, -0])).dataSync();
    const inf = Number.POSITIVE_INFINITY;
    expect([...edges]).toEqual([-inf, Number.NaN, inf, Number.NaN, 0, -0]);
  });

  test('refuses int32, which the stock one answers with uninitialised memory', () => {
    expect(() => tf.log1p(tf.tensor1d([1, 2], 'int32'))).toThrow('log1p: x must be float32 on wasm, got int32');
  });
});

describe('sum and mean on wasm', () => {
  test('the stock ones are 1 % off over a million', () => {
    const x = tf.fill([1e6], 0.1);
    expect(withStockKernel('Sum', () => scalar(tf.sum(x)))).toBeGreaterThan(100900);
    expect(scalar(tf.sum(x))).toBe(100000);
    expect(withStockKernel('Mean', () => scalar(tf.mean(x)))).toBeGreaterThan(0.1009);
    expect(scalar(tf.mean(x))).toBe(Math.fround(0.1));
  });

  test('equal a float64 loop over any axes, with and without keepDims', () => {
    const shapes = fc.array(fc.integer({ min: 1, max: 11 }), { minLength: 0, maxLength: 4 });
    fc.assert(
      fc.property(shapes, fc.nat(15), fc.boolean(), fc.boolean(), fc.integer(), (shape, mask, keepDims, mean, seed) => {
        const axes = shape.flatMap((_, a) => (mask & (1 << a) ? [a] : []));
        const x = tf.tensor(normal(seed, tf.util.sizeFromShape(shape)), shape);
        const y = (mean ? tf.mean : tf.sum)(x, axes, keepDims);
        const want = naiveSum(x, axes, mean);
        expect(y.shape).toEqual(shape.flatMap((n, a) => (axes.includes(a) ? (keepDims ? [1] : []) : [n])));
        expectClose('y', y.dataSync(), want, 2e-7);
      }),
      RUNS,
    );
  });

  test('gradients, int32 and empty tensors', () => {
    const x = tf.ones([2, 3]);
    const g = tf.grad((v: tf.Tensor) => tf.sum(tf.square(tf.mean(v, 0))))(x);
    expectClose('dx', g.dataSync(), [1, 1, 1, 1, 1, 1], 1e-6);
    expect([...tf.sum(tf.tensor2d([1, 2, 3, 4], [2, 2], 'int32'), 0).dataSync()]).toEqual([4, 6]);
    expect(scalar(tf.sum(tf.tensor1d([true, true, false], 'bool')))).toBe(2);
    expect([...tf.sum(tf.zeros([2, 0]), 1).dataSync()]).toEqual([0, 0]);
    expect(tf.sum(tf.zeros([0, 2]), 1).shape).toEqual([0]);
    const all = [Number.NaN, Number.POSITIVE_INFINITY].map((v) => scalar(tf.sum(tf.tensor1d([1, v, 2]))));
    expect(all).toEqual([Number.NaN, Number.POSITIVE_INFINITY]);
  });
});

describe('Identity on wasm', () => {
  const id = (x: tf.Tensor) => x.dataId as { id: number };

  test('a clone shares memory, and outlives the original', () => {
    const x = tf.tensor1d([1, 2, 3]);
    const copied = withStockKernel('Identity', () => x.clone());
    expect(id(copied)).not.toBe(id(x));
    const buffers = tf.memory().numDataBuffers;
    const shared = x.clone();
    expect(id(shared)).toBe(id(x));
    expect(tf.memory().numDataBuffers).toBe(buffers);
    x.dispose();
    tf.tensor1d([7, 8, 9]); // would take freed memory
    expect([...shared.dataSync()]).toEqual([1, 2, 3]);
    tf.dispose([copied, shared]);
    expect(tf.memory().numDataBuffers).toBe(buffers - 1);
  });

  test('a variable made from a clone keeps its value when the original variable changes', () => {
    const original = tf.variable(tf.tensor1d([1, 2]));
    const copy = tf.variable(original.clone());
    original.assign(tf.tensor1d([3, 4]));
    expect([...copy.dataSync()]).toEqual([1, 2]);
    tf.dispose([original, copy]);
  });

  test('strings are cloned as before', () => {
    expect([...tf.clone(tf.tensor1d(['a', 'bc'])).dataSync()]).toEqual(['a', 'bc']);
  });
});

describe('clipByValue on wasm', () => {
  test('the stock one hides NaN and does not clip int32 from above', () => {
    const nan = tf.tensor1d([Number.NaN, 2, -2]);
    const ints = tf.tensor1d([-3, 1, 10], 'int32');
    expect(withStockKernel('ClipByValue', () => [...tf.clipByValue(nan, -1, 1).dataSync()])).toEqual([-1, 1, -1]);
    expect(withStockKernel('ClipByValue', () => [...tf.clipByValue(ints, 0, 4).dataSync()])).not.toEqual([0, 1, 4]);
    expect([...tf.clipByValue(nan, -1, 1).dataSync()]).toEqual([Number.NaN, 1, -1]);
    expect([...tf.clipByValue(ints, 0, 4).dataSync()]).toEqual([0, 1, 4]);
  });

  test('any length, infinities included', () => {
    for (let n = 1; n < 10; n++) {
      const x = normal(n, n, 3);
      x[0] = Number.NEGATIVE_INFINITY;
      const want = x.map((v) => Math.min(Math.max(v, -1), 2));
      expect([...tf.clipByValue(tf.tensor1d(x), -1, 2).dataSync()]).toEqual([...want]);
    }
  });
});

describe('arithmetic at rank 7 and more on wasm', () => {
  const shape = [2, 1, 3, 1, 1, 1, 2];
  const ops: [string, (a: tf.Tensor, b: tf.Tensor) => tf.Tensor, (a: number, b: number) => number][] = [
    ['Add', tf.add, (a, b) => a + b],
    ['Sub', tf.sub, (a, b) => a - b],
    ['Multiply', tf.mul, (a, b) => a * b],
    ['RealDiv', tf.div, (a, b) => a / b],
    ['SquaredDifference', tf.squaredDifference, (a, b) => (a - b) ** 2],
  ];

  test.each(ops)('%s', (name, op, plain) => {
    const [a, b] = [normal(1, 12), normal(2, 12)];
    const run = () => [...op(tf.tensor(a, shape), tf.tensor(b, shape)).dataSync()];
    const want = [...a].map((v, i) => Math.fround(plain(v, b[i])));
    expect(withStockKernel(name, run)).not.toEqual(want); // it also logs a line of its own
    expectClose(name, run(), want, 1e-6);
  });

  test('broadcasts like lower ranks', () => {
    const [a, b] = randomTensors(3, [2, 3, 1, 1, 5], [2, 1, 4, 1, 1]);
    const high = tf.mul(tf.reshape(a, [2, 1, 3, 1, 1, 1, 5]), tf.reshape(b, [2, 1, 1, 1, 4, 1, 1]));
    expect(high.shape).toEqual([2, 1, 3, 1, 4, 1, 5]);
    expectClose('y', high.dataSync(), tf.mul(a, b).dataSync(), 0);
    expectClose('scalar', tf.add(high, 1).dataSync(), tf.add(tf.mul(a, b), 1).dataSync(), 0);
  });

  test('throws where more than six axes are really needed', () => {
    const [a, b] = [tf.ones([2, 1, 2, 1, 2, 1, 2]), tf.ones([1, 2, 1, 2, 1, 2, 1])];
    expect(() => tf.add(a, b)).toThrow('Add: the wasm backend broadcasts over at most 6 axes');
  });

  test('joinAxes keeps the sizes', () => {
    const dims = fc.array(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.constantFrom('both', 'a', 'b')), {
      maxLength: 9,
    });
    fc.assert(
      fc.property(dims, (list) => {
        const a = list.map(([n, who]) => (who === 'b' ? 1 : n));
        const b = list.map(([n, who]) => (who === 'a' ? 1 : n));
        const [joinedA, joinedB] = joinAxes(a, b);
        const product = (x: number[]) => tf.util.sizeFromShape(x);
        expect([product(joinedA), product(joinedB)]).toEqual([product(a), product(b)]);
        const out = tf.backend_util.assertAndGetBroadcastShape;
        expect(product(out(joinedA, joinedB))).toBe(product(out(a, b)));
      }),
    );
  });
});

test('no fix leaves a tensor or its memory behind', () => {
  const [x] = randomTensors(5, [3, 4, 5]);
  const bytes = () => (tf.backend() as unknown as { numDataIds(): number }).numDataIds();
  const before = [tf.memory().numTensors, bytes()];
  tf.tidy(() => {
    tf.sum(x, [0, 2]);
    tf.mean(x, [1], true);
    tf.log1p(tf.abs(x));
    tf.clipByValue(x, -1, 1);
    tf.unsortedSegmentSum(x, tf.tensor1d([0, 1, 0], 'int32'), 2);
    tf.add(tf.reshape(x, [3, 1, 1, 1, 1, 4, 5]), 1);
    tf.grad((v: tf.Tensor) => tf.sum(tf.cumsum(v, 1)))(x);
  });
  expect([tf.memory().numTensors, bytes()]).toEqual(before);
});

/** Sum or mean over axes by index arithmetic, in float64. */
function naiveSum(x: tf.Tensor, axes: number[], mean: boolean): Float64Array {
  const values = x.dataSync();
  const kept = x.shape.map((n, a) => (axes.includes(a) ? 1 : n));
  const out = new Float64Array(tf.util.sizeFromShape(kept));
  for (let i = 0; i < values.length; i++) {
    let [rest, at, step] = [i, 0, 1];
    for (let a = x.shape.length - 1; a >= 0; a--) {
      if (!axes.includes(a)) at += (rest % x.shape[a]) * step;
      step *= kept[a];
      rest = Math.floor(rest / x.shape[a]);
    }
    out[at] += values[i];
  }
  return mean ? out.map((v) => v / (values.length / out.length)) : out;
}
