import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type VandermondeInputs, type VandermondeOptions, vandermonde } from '../../src/chunked/index.js';
import { initialS4d, interleaved, Rng } from '../../src/ssm/index.js';
import { complexes } from '../oracle/complex.js';
import { vandermondeOracle } from '../oracle/vandermonde.js';
import { expectClose, outputsAndGrads, random, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;

interface Case {
  H: number;
  M: number;
  length: number;
  conjugate: boolean;
  seed: number;
}

const cases = (longest: number): fc.Arbitrary<Case> =>
  fc.record({
    H: fc.integer({ min: 1, max: 3 }),
    M: fc.integer({ min: 1, max: 9 }),
    length: fc.oneof(
      fc.integer({ min: 1, max: 20 }),
      fc.constantFrom(63, 64, 65, 256, 257),
      fc.integer({ min: 1, max: longest }),
    ),
    conjugate: fc.boolean(),
    seed: fc.integer({ min: 0, max: 1e6 }),
  });

/** Decays from none to hard, some so hard that float32 has no number for the taps; frequencies to `highest`, some 0. */
function draw({ H, M, length, seed }: Case, highest: number) {
  const next = random(seed);
  const modes = Array.from({ length: H * M }, () => {
    const decay = next() < 0.1 ? 0 : Math.exp(-9 + 12 * next());
    return [-decay, next() < 0.1 ? 0 : highest * (2 * next() - 1)];
  });
  const [w, gK] = randomTensors(seed, [H, M, 2], [H, length]);
  return { inputs: { zeta: tf.tensor(modes.flat(), [H, M, 2]), w }, gK };
}

type Inputs = { zeta: tf.Tensor; w: tf.Tensor };

/** Gives back the largest error of the taps of a channel, relative to its largest tap. */
function expectOracle(inputs: Inputs, gK: tf.Tensor, options: VandermondeOptions, tolerance: number): number {
  const [H, M] = inputs.zeta.shape;
  let worst = 0;
  const { outputs, grads } = outputsAndGrads((x: Inputs) => [vandermonde(x, options)], inputs, [gK]);
  const rows = (x: tf.Tensor) => values(tf.reshape(x, [-1])) as Float32Array;
  for (let h = 0; h < H; h++) {
    const [zeta, w] = [inputs.zeta, inputs.w].map((x) => complexes(rows(x).subarray(2 * h * M, 2 * (h + 1) * M)));
    const [from, to] = [h * options.length, (h + 1) * options.length];
    const want = vandermondeOracle(zeta, w, rows(gK).subarray(from, to), options.conjugate === false ? 1 : 2);
    expectClose('K', rows(outputs[0]).subarray(from, to), want.K, tolerance, want.terms);
    const part = (x: tf.Tensor) => rows(x).subarray(2 * h * M, 2 * (h + 1) * M);
    expectClose('gW', part(grads.w), want.gW.flat(), tolerance, want.termsW);
    expectClose('gZeta', part(grads.zeta), want.gZeta.flat(), tolerance, want.termsZeta);
    const error = want.K.reduce((most, k, l) => Math.max(most, Math.abs(k - values(outputs[0])[from + l])), 0);
    worst = Math.max(worst, error / Math.max(...want.K.map(Math.abs)));
  }
  return worst;
}

describe.each(forms)('vandermonde, %s form', (form) => {
  test('equals the oracle in the taps and both gradients', () => {
    fc.assert(
      fc.property(cases(form === 'auto' ? 900 : 300), (c) => {
        tf.tidy(() => {
          const { inputs, gK } = draw(c, 200);
          expectOracle(inputs, gK, { ...c, form }, form === 'auto' ? 3e-7 : 2e-6);
        });
      }),
      { numRuns: 60 },
    );
  });

  test('hides no NaN', () => {
    tf.tidy(() => {
      const [zeta, w] = [tf.fill([2, 2, 2], -0.1), tf.ones([2, 2, 2])];
      const spot = tf.tensor([0, 0, 0, 0, 0, Number.NaN, 0, 0], [2, 2, 2]);
      for (const inputs of [
        { zeta, w: tf.add(w, spot) },
        { zeta: tf.add(zeta, spot), w },
      ]) {
        const taps = values(vandermonde(inputs, { length: 20, form }));
        const bad = Array.from(taps, Number.isNaN);
        expect(bad.slice(0, 20)).toEqual(Array(20).fill(false)); // the other channel
        expect(bad.slice(21)).toEqual(Array(19).fill(true)); // tap 0 is the sum of w alone
      }
    });
  });

  test('leaves no tensor behind', () => {
    const [zeta, w, gK] = randomTensors(1, [2, 3, 2], [2, 3, 2], [2, 30]);
    const before = tf.memory().numTensors;
    tf.tidy(() => void outputsAndGrads((x: Inputs) => [vandermonde(x, { length: 30, form })], { zeta, w }, [gK]));
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([zeta, w, gK]);
  });
});

test.each([1024, 16384])(
  'S4D-LegS, N = 64, steps from 1e-3 to 1e-1, %i taps: error below 1e-6 of the largest',
  (length) => {
    tf.tidy(() => {
      const [H, M] = [2, 32];
      const { a, c } = initialS4d({ hiddenSize: H, stateSize: 2 * M }, new Rng(0));
      const steps = [1e-3, 1e-1];
      const zeta = tf.mul(tf.tensor(interleaved(a), [H, M, 2]), tf.tensor(steps, [H, 1, 1]));
      const w = tf.tensor(interleaved(c), [H, M, 2]);
      const worst = expectOracle({ zeta, w }, randomTensors(2, [H, length])[0], { length }, 3e-7);
      expect(worst).toBeLessThan(1e-6);
    });
  },
);

test('errors name the op, what was expected and what came', () => {
  const [zeta, w] = [tf.ones([2, 3, 2]), tf.ones([2, 3, 2])];
  const fail = (inputs: Partial<VandermondeInputs>, options: Partial<VandermondeOptions>, message: string) =>
    expect(() => vandermonde({ zeta, w, ...inputs }, { length: 4, ...options })).toThrow(message);
  fail({ zeta: tf.ones([2, 3]) }, {}, 'vandermonde: zeta must have shape [*,*,2], got [2,3]');
  fail({ w: tf.ones([2, 4, 2]) }, {}, 'vandermonde: w must have shape [2,3,2], got [2,4,2]');
  fail({ w: tf.ones([2, 3, 2], 'int32') }, {}, 'vandermonde: w must be float32, got int32');
  fail({ w: undefined }, {}, 'vandermonde: w is required');
  fail({}, { length: 0 }, 'vandermonde: length must be a positive integer, got 0');
});
