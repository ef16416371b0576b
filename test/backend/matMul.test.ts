/** tf.matMul and tf.fused.matMul on wasm, which run our product kernels, against float64. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { productOracle } from '../oracle/product.js';
import { expectClose, normal, outputsAndGrads, randomTensors, values } from '../support/tensors.js';
import { describeProducts } from './native.js';
import { withStockKernel } from './stock.js';

type Case = { M: number; N: number; K: number; transposeA: boolean; transposeB: boolean; seed: number };

const ROUNDING = 2 ** -24;
/** Of the sum of |terms|: what random signs and sizes stay below. The guarantee is in the kernel's header. */
const USUAL = 8 * ROUNDING;
const transposes = [false, true].flatMap((transposeA) =>
  [false, true].map((transposeB) => ({ transposeA, transposeB })),
);

const upTo = (max: number) => fc.integer({ min: 1, max });
const aShape = ({ M, K, transposeA }: Case) => (transposeA ? [K, M] : [M, K]);
const bShape = ({ N, K, transposeB }: Case) => (transposeB ? [N, K] : [K, N]);

/** Every element of `got` within `share` of the sum of absolute terms behind it. */
function expectShare(got: ArrayLike<number>, { c, terms }: ReturnType<typeof productOracle>, share: number): void {
  expect(got.length).toBe(c.length);
  let [worst, at] = [0, 0];
  for (let i = 0; i < c.length; i++) {
    const error = Math.abs(got[i] - c[i]) / terms[i];
    if (!(error <= worst)) [worst, at] = [Number.isNaN(error) ? Number.POSITIVE_INFINITY : error, i];
  }
  expect(worst, `element ${at}: got ${got[at]}, want ${c[at]}, terms ${terms[at]}`).toBeLessThanOrEqual(share);
}

function expectProduct(c: Case): void {
  tf.tidy(() => {
    const [a, b] = randomTensors(c.seed, aShape(c), bShape(c));
    const y = tf.matMul(a, b, c.transposeA, c.transposeB);
    expect(y.shape).toEqual([c.M, c.N]);
    expectShare(values(y), productOracle(values(a), values(b), c), USUAL);
  });
}

describeProducts('matMul on wasm', () => {
  test('equals float64 for any small sizes and transposes', () => {
    const sizes = { M: upTo(40), N: upTo(40), K: upTo(40), transposeA: fc.boolean(), transposeB: fc.boolean() };
    fc.assert(fc.property(fc.record({ ...sizes, seed: upTo(1e6) }), expectProduct), { numRuns: 300 });
  });

  const beyondBlocks = [
    { M: 133, N: 1037, K: 259 }, // past MC, NC and KC
    { M: 258, N: 6, K: 4099 }, // strips of totals, groups of terms
    { M: 19, N: 70, K: 8193 },
    { M: 1, N: 77, K: 4111 },
    { M: 77, N: 1, K: 4111 },
    { M: 16, N: 41, K: 1030 },
    { M: 17, N: 1, K: 1 },
    { M: 1, N: 1, K: 20_000 },
  ].flatMap((sizes, seed) => transposes.map((flags) => ({ ...sizes, ...flags, seed })));
  test.each(beyondBlocks)(
    'equals float64 at $M x $K x $N, transposeA=$transposeA, transposeB=$transposeB',
    expectProduct,
  );

  test.each(transposes)('a sum of 100,000 terms of one sign keeps its digits, %j', (flags) => {
    for (const [M, N] of [
      [20, 24], // blocked
      [1, 24], // streamed
    ]) {
      tf.tidy(() => {
        const c = { M, N, K: 100_000, seed: 1, ...flags };
        const [a, b] = [tf.fill(aShape(c), 0.1), tf.add(tf.abs(randomTensors(2, bShape(c))[0]), 0.5)];
        const got = values(tf.matMul(a, b, c.transposeA, c.transposeB));
        expectShare(got, productOracle(values(a), values(b), c), 2e-6);
      });
    }
  });

  test.each(transposes)('NaN and Infinity reach their row or column and nothing else, %j', (flags) => {
    const sizes = fc.record({ M: upTo(20), N: upTo(20), K: upTo(20), seed: upTo(1e6) });
    fc.assert(
      fc.property(sizes, fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY), (s, bad) => {
        const c = { ...s, ...flags };
        const [a, b] = [normal(c.seed, c.M * c.K), normal(c.seed + 1, c.K * c.N)];
        a[c.seed % a.length] = bad;
        b[c.seed % b.length] = 0; // Infinity times 0 is NaN
        const want = productOracle(a, b, c).c;
        const y = tf.tidy(() => {
          const [left, right] = [tf.tensor(a, aShape(c)), tf.tensor(b, bShape(c))];
          return tf.matMul(left, right, c.transposeA, c.transposeB);
        });
        const got = values(y);
        y.dispose();
        const kind = (x: number) => (Number.isFinite(x) ? 'finite' : String(x));
        expect(Array.from(got).map(kind)).toEqual(Array.from(want).map(kind));
      }),
      { numRuns: 60 },
    );
  });

  test('broadcasts batches either way, as the cpu backend does on tiled ones', () => {
    const axis = fc.constantFrom([1, 1], [1, 3], [3, 1], [2, 2]); // [of a, of b]
    const cases = fc.record({
      axes: fc.array(axis, { maxLength: 3 }),
      shorter: fc.boolean(), // a leaves out its first axis
      M: upTo(5),
      N: upTo(5),
      K: upTo(5),
      flags: fc.constantFrom(...transposes),
      seed: upTo(1e6),
    });
    fc.assert(
      fc.property(cases, ({ axes, shorter, flags, seed, ...sizes }) => {
        tf.tidy(() => {
          const c = { ...sizes, ...flags, seed };
          const batch = axes.map(([m, n]) => Math.max(m, n));
          const drop = shorter && axes.length > 0 && axes[0][0] === 1 ? 1 : 0;
          const [a, b] = randomTensors(
            seed,
            [...axes.map(([m]) => m).slice(drop), ...aShape(c)],
            [...axes.map(([, n]) => n), ...bShape(c)],
          );
          const y = tf.matMul(a, b, c.transposeA, c.transposeB);
          expect(y.shape).toEqual([...batch, c.M, c.N]);
          const flat = (x: tf.Tensor, shape: number[]) =>
            values(tf.broadcastTo(x, [...batch, ...shape])) as Float32Array;
          const [aAll, bAll, got] = [flat(a, aShape(c)), flat(b, bShape(c)), values(y) as Float32Array];
          const part = (x: Float32Array, size: number, i: number) => x.subarray(i * size, (i + 1) * size);
          for (let i = 0; i < batch.reduce((n, size) => n * size, 1); i++) {
            const want = productOracle(part(aAll, c.M * c.K, i), part(bAll, c.K * c.N, i), c);
            expectShare(part(got, c.M * c.N, i), want, USUAL);
          }
        });
      }),
      { numRuns: 150 },
    );
  });

  test('the stock kernel mistakes batches that broadcast both ways', () => {
    const [a, b] = [tf.tensor([1, 10], [2, 1, 1, 1]), tf.tensor([1, 2, 3, 4, 5, 6], [2, 3, 1, 1])];
    const want = [1, 2, 3, 40, 50, 60];
    expect([...withStockKernel('BatchMatMul', () => tf.matMul(a, b)).dataSync()]).not.toEqual(want);
    expect([...tf.matMul(a, b).dataSync()]).toEqual(want);
  });

  test('sees a factor that changes in place; the stock kernel does not', () => {
    const [a, b] = [tf.ones([2, 3]), tf.ones([3, 2])];
    const heap = tf.backend() as unknown as { typedArrayFromHeap(x: tf.Tensor): Float32Array };
    const product = () => [...tf.matMul(a, b).dataSync()];
    expect(withStockKernel('BatchMatMul', product)).toEqual([3, 3, 3, 3]);
    heap.typedArrayFromHeap(b).fill(2);
    expect(withStockKernel('BatchMatMul', product)).toEqual([3, 3, 3, 3]);
    expect(product()).toEqual([6, 6, 6, 6]);
  });

  test.each(transposes)('its gradient is right, %j', (flags) => {
    tf.tidy(() => {
      const c = { M: 9, N: 21, K: 34, seed: 3, ...flags };
      const [a, b, dy] = randomTensors(4, [2, ...aShape(c)], [2, ...bShape(c)], [2, c.M, c.N]);
      const { grads } = outputsAndGrads((x) => [tf.matMul(x.a, x.b, c.transposeA, c.transposeB)], { a, b }, [dy]);
      const half = (x: tf.Tensor, i: number) => values(tf.slice(x, [i, 0, 0], [1, -1, -1]));
      for (const i of [0, 1]) {
        // dA = dC B^T and dB = A^T dC, each transposed where its factor is
        const { M, N, K } = c;
        const [dyi, ai, bi] = [half(dy, i), half(a, i), half(b, i)];
        const dA = c.transposeA
          ? productOracle(bi, dyi, { M: K, N: M, K: N, transposeA: c.transposeB, transposeB: true })
          : productOracle(dyi, bi, { M, N: K, K: N, transposeB: !c.transposeB });
        const dB = c.transposeB
          ? productOracle(dyi, ai, { M: N, N: K, K: M, transposeA: true, transposeB: c.transposeA })
          : productOracle(ai, dyi, { M: K, N, K: M, transposeA: !c.transposeA });
        expectShare(half(grads.a, i), dA, USUAL);
        expectShare(half(grads.b, i), dB, USUAL);
      }
    });
  });

  test('empty tensors give zeros or nothing', () => {
    expect([...tf.matMul(tf.zeros([2, 0]), tf.zeros([0, 3])).dataSync()]).toEqual([0, 0, 0, 0, 0, 0]);
    expect(tf.matMul(tf.zeros([0, 2]), tf.zeros([2, 3])).shape).toEqual([0, 3]);
  });

  test('leaves no tensor behind, and errors say what came', () => {
    const [a, b] = randomTensors(5, [2, 3], [4, 5]);
    const before = tf.memory();
    tf.tidy(() => void tf.matMul(a, a, false, true));
    expect(tf.memory()).toMatchObject({ numTensors: before.numTensors, numDataBuffers: before.numDataBuffers });
    expect(() => tf.matMul(a, b, false, true)).toThrow(
      'matMul: the inner sizes must be equal, got a [2,3] with transposeA=false and b [4,5] with transposeB=true',
    );
    expect(() => tf.matMul(tf.ones([2, 2], 'int32'), tf.ones([2, 2], 'int32'))).toThrow(
      "matMul: a must be float32 on wasm, got int32; use tf.cast(a, 'float32')",
    );
    expect(() => tf.matMul(a.reshape([6]), b)).toThrow('matMul: a must have at least two axes, got [6]');
  });
});

describeProducts('fused.matMul on wasm', () => {
  const weights = [0.1, -0.2, 0.3, 0.5, -0.7];
  const activations: Record<string, (x: number, column: number) => number> = {
    linear: (x) => x,
    relu: (x) => Math.max(x, 0),
    relu6: (x) => Math.min(Math.max(x, 0), 6),
    elu: (x) => (x > 0 ? x : Math.expm1(x)),
    sigmoid: (x) => 1 / (1 + Math.exp(-x)),
    leakyrelu: (x) => (x > 0 ? x : 0.3 * x),
    prelu: (x, column) => (x > 0 ? x : weights[column] * x),
  };

  describe.each(Object.keys(activations))('with %s', (activation) => {
    test.each(transposes)('equals float64, %j', (flags) => {
      const before = tf.memory();
      tf.tidy(() => {
        const c = { M: 7, N: 5, K: 11, seed: 6, ...flags };
        const [a, b] = randomTensors(7, [3, ...aShape(c)], bShape(c));
        for (const [shape, index] of [
          [[5], (_: number, column: number) => column],
          [[7, 1], (row: number) => row],
          [[1], () => 0],
        ] as [number[], (row: number, column: number) => number][]) {
          const bias = randomTensors(8, shape)[0];
          const y = tf.fused.matMul({
            a: a as tf.Tensor3D,
            b: tf.expandDims(b) as tf.Tensor3D,
            ...flags,
            bias,
            activation: activation as 'relu',
            preluActivationWeights: tf.tensor1d(weights),
            leakyreluAlpha: 0.3,
          });
          const biases = values(bias);
          const want = [0, 1, 2].flatMap((i) => {
            const products = productOracle(values(tf.slice(a, [i, 0, 0], [1, -1, -1])), values(b), c).c;
            return Array.from(products, (x, at) => {
              const [row, column] = [Math.floor(at / 5), at % 5];
              return activations[activation](x + biases[index(row, column)], column);
            });
          });
          expectClose('y', y, want, 1e-6);
        }
      });
      expect(tf.memory()).toMatchObject({ numTensors: before.numTensors, numDataBuffers: before.numDataBuffers });
    });
  });

  test('trains: the gradient of bias and factors is right', () => {
    const [a, b, bias, dy] = randomTensors(9, [4, 3], [3, 5], [5], [4, 5]);
    const fused = (x: { a: tf.Tensor; b: tf.Tensor; bias: tf.Tensor }) => [
      tf.fused.matMul({ a: x.a as tf.Tensor2D, b: x.b as tf.Tensor2D, bias: x.bias }),
    ];
    const plain = (x: { a: tf.Tensor; b: tf.Tensor; bias: tf.Tensor }) => [tf.add(tf.matMul(x.a, x.b), x.bias)];
    tf.env().set('IS_TEST', false); // else TensorFlow.js takes what its fused op saves for the gradient for a leak
    const [got, want] = [fused, plain].map((f) => outputsAndGrads(f, { a, b, bias }, [dy]));
    tf.env().set('IS_TEST', true);
    for (const name of ['a', 'b', 'bias'] as const) expectClose(name, got.grads[name], want.grads[name], 1e-6);
    expectClose('y', got.outputs[0], want.outputs[0], 1e-6);
  });
});
