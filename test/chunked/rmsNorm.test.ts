import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { gatedRmsNorm, l2Norm, rmsNorm } from '../../src/chunked/index.js';
import { normOracle } from '../oracle/primitives.js';
import { expectClose, normal, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
type Form = (typeof forms)[number];

/** The three norms as one: which op, its oracle options, and whether it takes a weight and a gate. */
const norms = {
  rmsNorm: { eps: 1e-5, activation: 'none' },
  l2Norm: { eps: 1e-6, activation: 'none' },
  gatedSilu: { eps: 1e-5, activation: 'silu' },
  gatedSigmoid: { eps: 1e-5, activation: 'sigmoid' },
} as const;
type Name = keyof typeof norms;
type Inputs = { x: tf.Tensor; gate: tf.Tensor; weight: tf.Tensor };

function run(name: Name, inputs: Partial<Inputs>, dy: tf.Tensor, form: Form) {
  const op = ({ x, gate, weight }: Inputs) => {
    if (name === 'l2Norm') return l2Norm({ x }, { form });
    if (name === 'rmsNorm') return rmsNorm({ x, weight }, { form });
    const { activation } = norms[name];
    return gatedRmsNorm({ x, gate, weight }, { activation, form });
  };
  return outputsAndGrads((all) => [op(all)], inputs as Inputs, [dy]);
}

/** Only the inputs that the op takes. */
function inputsOf(name: Name, weighted: boolean, { x, gate, weight }: Inputs): Partial<Inputs> {
  return { x, ...(name.startsWith('gated') && { gate }), ...(weighted && name !== 'l2Norm' && { weight }) };
}

function expectOracle(name: Name, inputs: Partial<Inputs>, dy: tf.Tensor, form: Form, tolerance: number) {
  const { eps, activation } = norms[name];
  const D = dy.shape[dy.shape.length - 1];
  const arrays = Object.fromEntries(Object.entries(inputs).map(([k, t]) => [k, values(t)])) as { x: Float32Array };
  const want = normOracle(arrays, { D, eps, meanFactor: name === 'l2Norm' ? 1 : 1 / D, activation }, values(dy));
  const { outputs, grads } = run(name, inputs, dy, form);
  expectClose(`${name} y`, outputs[0], want.y, tolerance);
  expectClose(`${name} dx`, grads.x, want.dx, tolerance, Math.max(1, want.dxTerms)); // terms of both signs cancel
  if (inputs.gate) expectClose(`${name} dGate`, grads.gate, want.dGate, tolerance);
  if (inputs.weight) expectClose(`${name} dWeight`, grads.weight, want.dWeight, tolerance);
}

describe.each(Object.keys(norms) as Name[])('%s', (name) => {
  test.each(forms)('%s form equals the oracle in output and gradients', (form) => {
    fc.assert(
      fc.property(
        fc.record({
          lead: fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 3 }),
          D: fc.integer({ min: 1, max: 41 }),
          seed: fc.integer({ min: 0, max: 1e6 }),
          scale: fc.constantFrom(1e-4, 1, 300),
          weighted: fc.boolean(),
        }),
        ({ lead, D, seed, scale, weighted }) => {
          const shape = [...lead, D];
          tf.tidy(() => {
            const [x, gate, dy, weight] = randomTensors(seed, shape, shape, shape, [D]);
            const all = { x: tf.mul(x, scale), gate: tf.mul(gate, 4), weight };
            expectOracle(name, inputsOf(name, weighted, all), dy, form, 2e-6);
          });
        },
      ),
      { numRuns: 30 },
    );
  });

  test('the weight gradient over 20,000 rows keeps float32 accuracy', () => {
    const shape = [20_000, 6];
    tf.tidy(() => {
      const [x, gate, weight] = randomTensors(3, shape, shape, [6]);
      // Terms of one sign, so that the sum grows past what a float32 running sum can add to.
      const [positive, dy] = [tf.add(tf.abs(x), 0.5), tf.ones(shape)];
      expectOracle(name, inputsOf(name, true, { x: positive, gate: tf.abs(gate), weight }), dy, 'auto', 5e-7);
    });
  });

  test.each(forms)('%s form: rows of zeros, and gates of -1e4 and 1e4, stay finite and right', (form) => {
    tf.tidy(() => {
      const x = tf.tensor2d([...new Float32Array(5), ...normal(1, 10)], [3, 5]);
      const gate = tf.tensor2d([1, -1e4, 1e4, 0, -1, 1e4, -1e4, 3, 1e4, -1e4, 0, 1, 2, 3, 4], [3, 5]);
      const [dy, weight] = randomTensors(2, [3, 5], [5]);
      expectOracle(name, inputsOf(name, true, { x, gate, weight }), dy, form, 2e-6);
    });
  });

  test.each(forms)('%s form: NaN in a row gives NaN in that row and nowhere else', (form) => {
    tf.tidy(() => {
      const [x, gate, dy, weight] = randomTensors(4, [3, 6], [3, 6], [3, 6], [6]);
      const mask = tf.tensor2d([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [3, 6], 'bool');
      const bad = tf.where(mask, Number.NaN, x);
      const { outputs, grads } = run(name, inputsOf(name, true, { x: bad, gate, weight }), dy, form);
      const rows = (t: tf.Tensor) =>
        [0, 6, 12].map((at) =>
          Array.from(values(t))
            .slice(at, at + 6)
            .map(Number.isNaN),
        );
      const expected = [Array(6).fill(false), Array(6).fill(true), Array(6).fill(false)];
      expect(rows(outputs[0])).toEqual(expected);
      expect(rows(grads.x)).toEqual(expected);
    });
  });

  test('leaves no tensor behind', () => {
    const [x, gate, dy, weight] = randomTensors(5, [4, 7], [4, 7], [4, 7], [7]);
    for (const form of forms) {
      const before = tf.memory().numTensors;
      tf.tidy(() => void run(name, inputsOf(name, true, { x, gate, weight }), dy, form));
      expect(tf.memory().numTensors).toBe(before);
    }
    tf.dispose([x, gate, dy, weight]);
  });
});

test('errors name the op, what was expected and what came', () => {
  const [x, weight] = randomTensors(6, [2, 4], [5]);
  expect(() => rmsNorm({ x, weight })).toThrow('rmsNorm: weight must have shape [4], got [5]');
  expect(() => rmsNorm({ x: tf.scalar(1) })).toThrow('rmsNorm: x must have at least one axis, got a scalar');
  expect(() => rmsNorm({ x }, { eps: -1 })).toThrow('rmsNorm: eps must be zero or a positive number, got -1');
  expect(() => l2Norm({ x }, { eps: Number.NaN })).toThrow('l2Norm: eps must be zero or a positive number, got NaN');
  expect(() => l2Norm({ x: tf.ones([2], 'int32') })).toThrow('l2Norm: x must be float32, got int32');
  expect(() => l2Norm({ x }, { form: 'chunk' as 'plain' })).toThrow("form must be one of 'auto', 'plain', got 'chunk'");
  expect(() => gatedRmsNorm({ x, gate: weight })).toThrow('gatedRmsNorm: gate must have shape [2,4], got [5]');
  const relu = { activation: 'relu' as 'silu' };
  expect(() => gatedRmsNorm({ x, gate: x }, relu)).toThrow("activation must be one of 'silu', 'sigmoid', got 'relu'");
});
