import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { AdamW, type AdamWStep, accumulate, NonFiniteGradientError } from '../../src/chunked/index.js';
import { AdamWOracle } from '../oracle/losses.js';
import { onAsyncBackend } from '../support/asyncBackend.js';
import { expectClose, normal, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
type Shapes = Record<string, number[]>;
type Weights = Map<string, tf.Variable>;

const shapes: Shapes = { scalar: [], bias: [7], matrix: [5, 3], large: [33, 65], cube: [2, 3, 4] };
const options: AdamWStep = { learningRate: 0.01, weightDecay: 0.1 };

afterEach(() => tf.disposeVariables());

const sizeOf = (shape: number[]) => tf.util.sizeFromShape(shape);

function makeWeights(shapes: Shapes, seed = 1): Weights {
  const entries = Object.entries(shapes).map(([name, shape], i) => {
    const start = tf.tensor(normal(seed * 100 + i, sizeOf(shape)), shape, 'float32');
    const weight = tf.variable(start);
    start.dispose();
    return [name, weight] as const;
  });
  return new Map(entries);
}

function makeGrads(shapes: Shapes, seed: number, scale = 1): Record<string, tf.Tensor> {
  const entries = Object.entries(shapes).map(([name, shape], i) => {
    return [name, tf.tensor(normal(seed * 100 + i, sizeOf(shape), scale), shape, 'float32')] as const;
  });
  return Object.fromEntries(entries);
}

const arraysOf = (tensors: Record<string, tf.Tensor>) =>
  Object.fromEntries(Object.entries(tensors).map(([name, x]) => [name, Float64Array.from(values(x))]));

describe.each(forms)('AdamW, %s form', (form) => {
  test('equals the float64 recurrence over 50 steps, with clipping and groups', async () => {
    const [betas, eps] = [[0.9, 0.95] as const, 1e-8];
    const weights = makeWeights(shapes);
    const optimizer = new AdamW({ betas, eps, form });
    const oracle = new AdamWOracle(arraysOf(Object.fromEntries(weights)), betas, eps);
    const groups = (name: string) =>
      ({ bias: { weightDecay: 0 }, matrix: { lrScale: 3 }, cube: { weightDecay: 2, lrScale: 0 } })[name] ?? {};
    for (let step = 1; step <= 50; step++) {
      // Sizes from 1e-6 to 1e6 of the clip; every seventh step without clipping; the bias gets a gradient every other step only.
      const grads = makeGrads(shapes, step, 10 ** ((step % 13) - 6));
      if (step % 2 === 0) delete grads.bias;
      const how = { learningRate: 0.02 / step, weightDecay: 0.1, clipNorm: step % 7 ? 1 : undefined, groups };
      const want = oracle.update(arraysOf(grads), how);
      const { gradNorm } = await optimizer.step(weights, grads, how);
      expect(gradNorm / want).toBeCloseTo(1, 6);
      tf.dispose(grads);
    }
    const { step, m, v } = optimizer.state();
    expect(step).toBe(50);
    for (const name of Object.keys(shapes)) {
      expectClose(`weight ${name}`, weights.get(name) as tf.Tensor, oracle.weights[name], 2e-6);
      expectClose(`m of ${name}`, m.get(name) as tf.Tensor, oracle.m[name], 1e-6);
      expectClose(`v of ${name}`, v.get(name) as tf.Tensor, oracle.v[name], 1e-6);
    }
    optimizer.dispose();
  });

  test('equals the recurrence for any shapes, betas and eps', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          sizes: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 4 }),
          betas: fc.constantFrom([0.9, 0.95], [0.9, 0.999], [0, 0], [0.5, 0]) as fc.Arbitrary<[number, number]>,
          eps: fc.constantFrom(1e-8, 1e-3),
          clipNorm: fc.constantFrom(undefined, 0.1, 100),
          seed: fc.integer({ min: 0, max: 1e6 }),
        }),
        async ({ sizes, betas, eps, clipNorm, seed }) => {
          const some = Object.fromEntries(sizes.map((n, i) => [`w${i}`, [n]]));
          const weights = makeWeights(some, seed);
          const optimizer = new AdamW({ betas, eps, form });
          const oracle = new AdamWOracle(arraysOf(Object.fromEntries(weights)), betas, eps);
          for (let step = 1; step <= 4; step++) {
            const grads = makeGrads(some, seed + step);
            oracle.update(arraysOf(grads), { ...options, clipNorm });
            await optimizer.step(weights, grads, { ...options, clipNorm });
            tf.dispose(grads);
          }
          for (const [name, w] of weights) expectClose(name, w, oracle.weights[name], 1e-6);
          optimizer.dispose();
          tf.disposeVariables();
        },
      ),
      { numRuns: 25 },
    );
  });

  test('a constant gradient gives exact moments, without drift', async () => {
    const weights = makeWeights({ w: [5] });
    const optimizer = new AdamW({ betas: [0.9, 0.999], form });
    const w = tf.tensor1d([1, 0.1, 3, -7, 1e-3]);
    const square = Array.from(values(w), (g) => Math.fround(g * g));
    optimizer.loadState({ step: 1e6, m: new Map([['w', w.clone()]]), v: new Map([['w', tf.tensor1d(square)]]) });
    for (let step = 0; step < 200; step++) await optimizer.step(weights, { w }, options);
    const { m, v } = optimizer.state();
    expectClose('m', m.get('w') as tf.Tensor, w, 0);
    expectClose('v', v.get('w') as tf.Tensor, square, 0);
    tf.dispose(w);
    optimizer.dispose();
  });

  test.each([
    ['NaN', Number.NaN],
    ['Infinity', Number.POSITIVE_INFINITY],
    ['1e20', 1e20],
  ])('a gradient with %s is refused before anything is touched', async (_, bad) => {
    const weights = makeWeights({ a: [4], b: [6] });
    const optimizer = new AdamW({ form });
    const grads = makeGrads({ a: [4], b: [6] }, 3);
    await optimizer.step(weights, grads, options);
    const snapshot = () =>
      [...weights.values(), ...optimizer.state().m.values(), ...optimizer.state().v.values()].map((x) => [
        ...x.dataSync(),
      ]);
    const before = snapshot();
    const wrong = { ...grads, b: tf.tensor1d([1, 2, 3, 4, 5, bad]) };
    await expect(optimizer.step(weights, wrong, { ...options, clipNorm: 1 })).rejects.toThrow(
      "AdamW.step: the gradient of 'b' must be finite, with a norm below 1.8e+19, got a norm of",
    );
    await expect(optimizer.step(weights, wrong, options)).rejects.toThrow(NonFiniteGradientError);
    expect(snapshot()).toEqual(before);
    expect(optimizer.state().step).toBe(1);
    tf.dispose([grads, wrong]);
    optimizer.dispose();
  });

  test('tensors that share memory with a weight or a moment keep their values', async () => {
    const start = tf.tensor1d(normal(1, 10));
    const weight = tf.variable(start); // shares with `start`
    const weights = new Map([['w', weight]]);
    const optimizer = new AdamW({ form });
    const grads = makeGrads({ w: [10] }, 2);
    const others: tf.Tensor[] = [start];
    for (let step = 0; step < 3; step++) {
      others.push(weight.clone(), tf.reshape(weight, [2, 5]));
      if (step)
        others.push(
          tf.reshape(optimizer.state().m.get('w') as tf.Tensor, [5, 2]),
          tf.clone(optimizer.state().v.get('w') as tf.Tensor),
        );
      const before = others.map((x) => [...x.dataSync()]);
      await optimizer.step(weights, grads, options);
      expect(others.map((x) => [...x.dataSync()])).toEqual(before);
      expect([...weight.dataSync()]).not.toEqual(before[before.length - (step ? 4 : 2)]);
    }
    tf.dispose([others, grads]);
    optimizer.dispose();
  });

  test('steps add no tensor beyond the moments', async () => {
    const before = tf.memory().numTensors;
    const weights = makeWeights(shapes);
    const optimizer = new AdamW({ form });
    const grads = makeGrads(shapes, 1);
    const counts: number[] = [];
    for (let step = 0; step < 4; step++) {
      await optimizer.step(weights, grads, { ...options, clipNorm: 1 });
      counts.push(tf.memory().numTensors);
    }
    expect(counts).toEqual(Array(4).fill(before + 4 * Object.keys(shapes).length)); // weight, gradient, m, v
    optimizer.dispose();
    tf.dispose(grads);
    tf.disposeVariables();
    expect(tf.memory().numTensors).toBe(before);
  });

  test('a saved state continues as if unbroken, to the last bit', async () => {
    const run = async (restartAt: number | undefined) => {
      const weights = makeWeights(shapes, 5);
      let optimizer = new AdamW({ form });
      for (let step = 0; step < 6; step++) {
        if (step === restartAt) {
          const { m, v, ...rest } = optimizer.state();
          const copy = (all: Map<string, tf.Tensor>) =>
            new Map([...all].map(([n, x]) => [n, tf.tensor(x.dataSync(), x.shape)]));
          const saved = { ...rest, m: copy(m), v: copy(v) };
          optimizer.dispose();
          optimizer = new AdamW({ form });
          optimizer.loadState(saved);
        }
        const grads = makeGrads(shapes, step);
        await optimizer.step(weights, grads, { ...options, clipNorm: 1 });
        tf.dispose(grads);
      }
      const result = [...weights.values()].map((w) => [...w.dataSync()]);
      optimizer.dispose();
      tf.disposeVariables();
      return result;
    };
    expect(await run(3)).toEqual(await run(undefined));
  });
});

test('runs where data is read asynchronously only', () =>
  onAsyncBackend(async () => {
    const weights = new Map([['w', tf.variable(tf.tensor1d([1, 2]))]]);
    const oracle = new AdamWOracle({ w: Float64Array.of(1, 2) }, [0.9, 0.95], 1e-8);
    const optimizer = new AdamW();
    await optimizer.step(weights, { w: tf.tensor1d([3, 4]) }, options);
    expect(oracle.update({ w: [3, 4] }, options)).toBe(5);
    expectClose('w', await (weights.get('w') as tf.Tensor).data(), oracle.weights.w, 1e-6);
    await expect(optimizer.step(weights, { w: tf.tensor1d([1, Number.NaN]) }, options)).rejects.toThrow('norm of NaN');
  }));

test('ops of TensorFlow.js see the new weights (its wasm backend packs the filter of a convolution once)', async () => {
  const filter = tf.variable(tf.tensor4d(normal(1, 15), [1, 1, 3, 5]));
  const gradient = tf.tensor4d(normal(2, 15), [1, 1, 3, 5]);
  const x = tf.tensor4d(normal(3, 48), [1, 4, 4, 3]);
  const optimizer = new AdamW();
  for (let n = 0; n < 3; n++) {
    const y = tf.conv2d(x, filter, 1, 'same');
    const fresh = tf.tidy(() =>
      tf.conv2d(x, tf.tensor4d(Float32Array.from(filter.dataSync()), [1, 1, 3, 5]), 1, 'same'),
    );
    expect(Array.from(y.dataSync())).toEqual(Array.from(fresh.dataSync()));
    await optimizer.step(new Map([['w', filter]]), { w: gradient }, { learningRate: 0.5, weightDecay: 0 });
    tf.dispose([y, fresh]);
  }
  optimizer.dispose();
  tf.dispose([filter, gradient, x]);
});

test('the norm of a million gradients is right to 10 digits', async () => {
  const n = 1_000_000;
  const weights = new Map([['w', tf.variable(tf.zeros([n]))]]);
  const grads = { w: tf.fill([n], 0.1) };
  const optimizer = new AdamW();
  const { gradNorm } = await optimizer.step(weights, grads, options);
  expect(gradNorm / (Math.fround(0.1) * 1000)).toBeCloseTo(1, 10);
  tf.dispose(grads);
  optimizer.dispose();
});

test('without any gradient a step changes nothing but the count', async () => {
  const weights = makeWeights({ w: [3] });
  const optimizer = new AdamW();
  expect(await optimizer.step(weights, {}, options)).toEqual({ gradNorm: 0 });
  expect(optimizer.state().step).toBe(1);
  expect([...(weights.get('w') as tf.Tensor).dataSync()]).toEqual([...normal(100, 3)]);
});

test('loadState frees the moments it replaces, but not those it is given back', async () => {
  const weights = makeWeights({ w: [3] });
  const grads = makeGrads({ w: [3] }, 1);
  const before = tf.memory().numTensors;
  const optimizer = new AdamW();
  await optimizer.step(weights, grads, options);
  optimizer.loadState(optimizer.state());
  await optimizer.step(weights, grads, options);
  expect(tf.memory().numTensors).toBe(before + 2);
  optimizer.loadState({ step: 0, m: new Map(), v: new Map() });
  expect(tf.memory().numTensors).toBe(before);
  tf.dispose(grads);
});

test('accumulate adds multiples, makes what is missing and disposes of what it replaces', () => {
  const total: Record<string, tf.Tensor> = {};
  const before = tf.memory().numTensors;
  const [a, b] = [{ x: tf.tensor1d([1, 2]) }, { x: tf.tensor1d([10, 20]), y: tf.scalar(4) }];
  accumulate(total, a, 0.5);
  accumulate(total, b, 0.25);
  expect([...total.x.dataSync()]).toEqual([3, 6]);
  expect([...total.y.dataSync()]).toEqual([1]);
  expect(tf.memory().numTensors).toBe(before + 3 + 2);
  expect(() => accumulate(total, a, Number.NaN)).toThrow('accumulate: factor must be a finite number, got NaN');
  tf.dispose([a, b, total]);
});

test('AdamW errors name the method, what was expected and what came', async () => {
  expect(() => new AdamW({ betas: [0.9, 1] })).toThrow('AdamW: betas must be two numbers in [0, 1), got [0.9,1]');
  expect(() => new AdamW({ eps: 0 })).toThrow('AdamW: eps must be a positive number, got 0');
  expect(() => new AdamW({ form: 'chunk' as 'plain' })).toThrow(
    "AdamW: form must be one of 'auto', 'plain', got 'chunk'",
  );
  const weights = makeWeights({ w: [2, 3] });
  const optimizer = new AdamW();
  const step = (grads: Record<string, tf.Tensor>, how: Partial<AdamWStep> = {}) =>
    expect(optimizer.step(weights, grads, { ...options, ...how })).rejects;
  const w = tf.ones([2, 3]);
  await step({ w }, { learningRate: Number.NaN }).toThrow(
    'AdamW.step: learningRate must be zero or a positive number, got NaN',
  );
  await step({ w }, { weightDecay: -1 }).toThrow('AdamW.step: weightDecay must be zero or a positive number, got -1');
  await step({ w }, { clipNorm: 0 }).toThrow('AdamW.step: clipNorm must be a positive number, got 0; leave it out');
  await step({ w }, { groups: () => ({ lrScale: -2 }) }).toThrow(
    "lrScale of the group of 'w' must be zero or a positive number, got -2",
  );
  await step({ u: w }).toThrow("AdamW.step: there is a gradient for 'u', which is no weight");
  await step({ w: tf.ones([6]) }).toThrow("AdamW.step: the gradient of 'w' must have shape [2,3], got [6]");
  await step({ w: tf.ones([2, 3], 'int32') }).toThrow("AdamW.step: the gradient of 'w' must be float32, got int32");
});

test('a state that does not fit is refused', async () => {
  const weights = makeWeights({ w: [2] });
  const grads = makeGrads({ w: [2] }, 1);
  const moments = (name: string, shape: number[]) => new Map([[name, tf.zeros(shape)]]);
  const optimizer = new AdamW();
  expect(() => optimizer.loadState({ step: -1, m: new Map(), v: new Map() })).toThrow(
    'AdamW.loadState: step must be an integer >= 0, got -1',
  );
  expect(() => optimizer.loadState({ step: 1, m: moments('w', [2]), v: new Map() })).toThrow(
    "must have the same names, got 'w' in one of them only",
  );
  expect(() => optimizer.loadState({ step: 1, m: moments('w', [2]), v: moments('w', [3]) })).toThrow(
    "v of 'w' must have shape [2], got [3]",
  );
  const twice = moments('w', [2]);
  expect(() => optimizer.loadState({ step: 1, m: twice, v: twice })).toThrow(
    'must be a tensor of its own, got one twice',
  );
  optimizer.loadState({ step: 1, m: moments('u', [2]), v: moments('u', [2]) });
  await expect(optimizer.step(weights, grads, options)).rejects.toThrow(
    "there are moments for 'u', which is no weight",
  );
  optimizer.loadState({ step: 1, m: moments('w', [2, 1]), v: moments('w', [2, 1]) });
  await expect(optimizer.step(weights, grads, options)).rejects.toThrow(
    "the moments of 'w' must have shape [2], got [2,1]",
  );
});
