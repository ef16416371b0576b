import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bitLinear, quantiseActivations, quantiseWeight } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { bitLinearOracle, roundToEven } from '../oracle/bitLinear.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
type Form = (typeof forms)[number];
type Tensors = Record<string, tf.Tensor>;

/** Outputs, quantised values and gradients equal the oracle's; false where a value is too close to a tie to be told in float32. */
function equalsOracle(inputs: Tensors, dOut: tf.Tensor, form: Form, options: { bits: 8 | null; eps: number }): boolean {
  const { x, weight, norm } = inputs;
  const [O, I] = weight.shape as [number, number];
  const { bits: activationBits, eps } = options;
  const arrays = { x: values(x), weight: values(weight), norm: norm && values(norm) };
  const want = bitLinearOracle(arrays, { I, O, eps, rounds: activationBits === 8 }, values(dOut));
  if (want.margin < 2e-4) return false;
  const op = (all: Tensors) => [bitLinear(all as { x: tf.Tensor; weight: tf.Tensor }, { activationBits, eps, form })];
  const { outputs, grads } = outputsAndGrads(op, inputs, [dOut]);
  const largest = (array: ArrayLike<number>) => Array.from(array).reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  expectClose('out', outputs[0], want.out, 3e-6, largest(want.out));
  expectClose('dWeight', grads.weight, want.dWeight, 3e-6, largest(want.dWeight));
  expectClose('dx', grads.x, want.dx, 3e-6, want.dxTerms); // terms of both signs cancel
  if (norm) expectClose('dNorm', grads.norm, want.dNorm, 3e-6, largest(want.dNorm));
  if (activationBits === null) return true;
  const ofX = quantiseActivations({ x, norm }, { eps, form });
  const ofWeight = quantiseWeight(weight, { form });
  expect(Array.from(values(ofX.values), zero)).toEqual(Array.from(want.integers, zero));
  expect(Array.from(values(ofWeight.values), zero)).toEqual(Array.from(want.ternary, zero));
  expect(ofX.scale.shape).toEqual([...x.shape.slice(0, -1), 1]);
  for (const [i, scale] of want.scales.entries()) expect(values(ofX.scale)[i] / scale).toBeCloseTo(1, 5);
  expect(values(ofWeight.scale)[0] / want.weightScale).toBeCloseTo(1, 6);
  return true;
}

/** -0 is 0. */
const zero = (v: number) => v + 0;

describe.each(forms)('bitLinear, %s form', (form) => {
  test('equals the oracle in output, whole numbers and gradients', () => {
    let compared = 0;
    const sizes = fc.record({
      lead: fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 3 }),
      I: fc.integer({ min: 1, max: 41 }),
      O: fc.integer({ min: 1, max: 20 }),
      seed: fc.nat(1e6),
      // to the floor of the activations (y below 1e-5), and of the weights
      xScale: fc.constantFrom(1e-12, 1e-4, 1, 300, 1e6),
      weightScale: fc.constantFrom(1e-7, 0.02, 50),
      normed: fc.boolean(),
      bits: fc.constantFrom<8 | null>(8, null),
      eps: fc.constantFrom(1e-8, 1e-6, 0.1),
    });
    const check = ({
      lead,
      I,
      O,
      seed,
      xScale,
      weightScale,
      normed,
      ...options
    }: typeof sizes extends fc.Arbitrary<infer T> ? T : never) =>
      inScope(() => {
        const [x, weight, norm, dOut] = randomTensors(seed, [...lead, I], [O, I], [I], [...lead, O]);
        const inputs = { x: tf.mul(x, xScale), weight: tf.mul(weight, weightScale), ...(normed && { norm }) };
        if (equalsOracle(inputs, dOut, form, options)) compared++;
      });
    fc.assert(fc.property(sizes, check), { numRuns: 120 });
    expect(compared).toBeGreaterThan(60);
  });

  test('rows of zeros, weights of zeros and weights of one sign stay finite and right', () =>
    inScope(() => {
      const [drawn, weight, norm, dOut] = randomTensors(3, [3, 7], [5, 7], [7], [3, 5]);
      const x = tf.mul(drawn, tf.tensor2d([[1], [0], [1]]));
      const bits = { bits: 8, eps: 1e-6 } as const;
      const weights = [weight, tf.zerosLike(weight), tf.fill([5, 7], -0.3), tf.fill([5, 7], 1e-6)];
      for (const w of weights) expect(equalsOracle({ x, weight: w, norm }, dOut, form, bits)).toBe(true);
    }));

  test('ties round to even', () =>
    inScope(() => {
      // mean square 1 - eps is out of reach in float32, so the scale of x comes back out through the largest value: 127 of them.
      const halves = Array.from({ length: 254 }, (_, i) => i - 127 + 0.5);
      const norm = tf.tensor1d([127, ...halves]);
      const { values: got, scale } = quantiseActivations({ x: tf.ones([1, 255]), norm }, { eps: 0, form });
      expect(Array.from(values(scale))).toEqual([1]);
      expect(Array.from(values(got), zero)).toEqual([127, ...halves.map(roundToEven)].map(zero));
      const ofWeight = quantiseWeight(tf.tensor2d([[0.5, -0.5, 1.5, -1.5, 1, -1]]), { form });
      expect(Array.from(values(ofWeight.values), zero)).toEqual([0, 0, 1, -1, 1, -1]);
    }));

  test('NaN in a row gives NaN in that row and nowhere else', () =>
    inScope(() => {
      const [x, weight] = randomTensors(4, [3, 6], [5, 6]);
      const mask = tf.tensor2d([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [3, 6], 'bool');
      const y = values(bitLinear({ x: tf.where(mask, Number.NaN, x), weight }, { form }));
      const bad = Array.from(y, Number.isNaN);
      expect(bad).toEqual([...Array(5).fill(false), ...Array(5).fill(true), ...Array(5).fill(false)]);
    }));

  test('leaves no tensor behind', () => {
    const [x, weight, norm, dOut] = randomTensors(5, [4, 7], [3, 7], [7], [4, 3]);
    const before = tf.memory().numTensors;
    bitLinear({ x, weight, norm }, { form }).dispose();
    for (const of of [quantiseActivations({ x, norm }, { form }), quantiseWeight(weight, { form })])
      tf.dispose([of.values, of.scale]);
    const op = (all: Tensors) => [bitLinear(all as { x: tf.Tensor; weight: tf.Tensor }, { form })];
    tf.tidy(() => void outputsAndGrads(op, { x, weight, norm }, [dOut]));
    expect(tf.memory().numTensors).toBe(before);
  });
});

test('a sum of 2000 int8 products is exact', () =>
  inScope(() => {
    const [x, weight] = randomTensors(6, [3, 2000], [4, 2000]);
    const [y, w] = [quantiseActivations({ x }), quantiseWeight(weight)];
    const [a, b] = [values(y.values), values(w.values)];
    const out = values(bitLinear({ x, weight }));
    const scales = values(y.scale);
    for (let row = 0; row < 3; row++)
      for (let o = 0; o < 4; o++) {
        let sum = 0;
        for (let i = 0; i < 2000; i++) sum += a[row * 2000 + i] * b[o * 2000 + i];
        expect(out[4 * row + o]).toBe(Math.fround(sum / Math.fround(scales[row] * values(w.scale)[0])));
      }
  }));

describe.each([
  ['wasm', 'auto'],
  ['wasm', 'plain'],
  ['cpu', 'auto'],
] as const)('stored vectors on the %s backend, %s form', (backend, form) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  test.each(goldenEntries('bitlinear').map((entry) => [entry.file, entry] as const))('%s', (_, entry) =>
    inScope(() => replay(entry, form)),
  );
});

function replay({ file, config, outputs, tolerances }: GoldenEntry, form: Form): void {
  const golden = readGolden(file);
  const eps = Number(config.eps);
  const inputs = { x: golden.x, weight: golden.weight, norm: golden['norm.weight'] };
  const run = outputsAndGrads((all) => [bitLinear(all, { eps, form })], inputs, [golden.dy]);
  const [ofX, ofWeight] = [quantiseActivations(inputs, { eps, form }), quantiseWeight(inputs.weight, { form })];
  const exact = bitLinear(
    { ...inputs, weight: tf.eye(golden.x.shape[1] as number) },
    { eps, form, activationBits: null },
  );
  const got: Tensors = {
    x_norm: tf.mul(exact, golden.x.shape[1] as number), // a ternary identity, whose scale is the number of its rows
    ...{ act_scale: ofX.scale, x_int8: ofX.values, weight_scale: tf.reshape(ofWeight.scale, [1]) },
    ...{ w_ternary: ofWeight.values, y: run.outputs[0] },
    ...{ dx: run.grads.x, dweight: run.grads.weight, dnorm_weight: run.grads.norm },
  };
  expect(Object.keys(got).sort()).toEqual(Object.keys(outputs).sort());
  for (const [name, t] of Object.entries(got)) {
    expect(t.shape, name).toEqual(golden[name].shape);
    const whole = name === 'x_int8' || name === 'w_ternary';
    const want = values(golden[name]);
    const worst = Array.from(values(t)).reduce((w, v, i) => Math.max(w, Math.abs(v - want[i])), 0);
    expect(worst, name).toBeLessThanOrEqual(whole ? 0 : tolerances[name].max_abs);
  }
}

test('errors name the op, what was expected and what came', () => {
  const [x, weight, norm] = randomTensors(6, [2, 4], [3, 4], [5]);
  expect(() => bitLinear({ x, weight: norm })).toThrow('bitLinear: weight must have shape [*,4], got [5]');
  expect(() => bitLinear({ x, weight, norm })).toThrow('bitLinear: norm must have shape [4], got [5]');
  expect(() => bitLinear({ x, weight }, { eps: -1 })).toThrow(
    'bitLinear: eps must be zero or a positive number, got -1',
  );
  expect(() => bitLinear({ x, weight }, { activationBits: 4 as 8 })).toThrow(
    'bitLinear: activationBits must be 8 or null, got 4',
  );
  expect(() => bitLinear({ x } as never)).toThrow('bitLinear: weight is required');
});
