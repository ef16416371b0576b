import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { mixtureOfExperts } from '../../src/chunked/index.js';
import { installedKernels, type KernelExports } from '../../src/chunked/wasm/runtime.js';
import { describeProducts } from '../backend/native.js';
import { type MoeDims, type MoeOracleOptions, moeOracle } from '../oracle/moe.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
type Form = (typeof forms)[number];

interface Case extends MoeDims {
  seed: number;
  biased: boolean;
  options: Required<MoeOracleOptions>;
}

type Inputs = Record<'x' | 'logits' | 'w1' | 'w2' | 'w3', tf.Tensor> & { bias?: tf.Tensor };

function draw({ N, D, E, I, seed, biased }: Case): { inputs: Inputs; dy: tf.Tensor } {
  const shapes = [[N, D], [N, E], [E], [E, I, D], [E, D, I], [E, I, D], [N, D]];
  const [x, logits, bias, w1, w2, w3, dy] = randomTensors(seed, ...shapes);
  const scaled = (w: tf.Tensor, fan: number) => tf.mul(w, fan ** -0.5);
  const inputs = { x, logits, w1: scaled(w1, D), w2: scaled(w2, I), w3: scaled(w3, D) };
  return { inputs: { ...inputs, ...(biased && { bias: tf.mul(bias, 0.3) }) }, dy };
}

function run({ inputs, dy }: ReturnType<typeof draw>, { k, options }: Case, form: Form) {
  const { renormalize, factor, groups, topGroups } = options;
  return outputsAndGrads(
    (all) => [
      mixtureOfExperts(all, {
        ...{ numExpertsPerToken: k, renormalize, routedScalingFactor: factor, form },
        ...{ numExpertGroup: groups, topkGroup: topGroups },
      }),
    ],
    inputs as Required<Inputs>,
    [dy],
  );
}

function expectOracle(c: Case, form: Form): void {
  inScope(() => {
    const sample = draw(c);
    const { x, logits, w1, w2, w3 } = sample.inputs;
    const arrays = { x: values(x), logits: values(logits), w1: values(w1), w2: values(w2), w3: values(w3) };
    const bias = sample.inputs.bias && values(sample.inputs.bias);
    const want = moeOracle({ ...arrays, bias }, c, values(sample.dy), c.options);
    fc.pre(want.gap > 1e-5); // else rounding may choose otherwise
    const { outputs, grads } = run(sample, c, form);
    expectClose('y', outputs[0], want.y, 2e-6);
    for (const [name, gradient] of Object.entries(want.grads))
      expectClose(`d ${name}`, grads[name as keyof Inputs] as tf.Tensor, gradient, 5e-6);
    if (bias) expect(Array.from(values(grads.bias)), 'load').toEqual(Array.from(want.load));
  });
}

/** Groups divide the experts, and a token finds enough of them in those it keeps. */
const anyCase: fc.Arbitrary<Case> = fc
  .record({
    ...{
      groups: fc.integer({ min: 1, max: 4 }),
      size: fc.integer({ min: 1, max: 5 }),
      kept: fc.nat(3),
      few: fc.nat(9),
    },
    ...{ N: fc.integer({ min: 1, max: 40 }), D: fc.integer({ min: 1, max: 19 }), I: fc.integer({ min: 1, max: 19 }) },
    ...{ seed: fc.nat(1e5), biased: fc.boolean(), renormalize: fc.boolean(), factor: fc.constantFrom(1, 2.446) },
  })
  .map(({ groups, size, kept, few, renormalize, factor, ...rest }) => {
    const topGroups = 1 + (kept % groups);
    const k = 1 + (few % (topGroups * size));
    return { ...rest, E: groups * size, k, options: { groups, topGroups, renormalize, factor } };
  });

const alone = { groups: 1, topGroups: 1, renormalize: true, factor: 2.446 };

describeProducts('mixture of experts', () => {
  describe.each(forms)('%s form', (form) => {
    test('equals the oracle in output, gradients and load', () => {
      fc.assert(
        fc.property(anyCase, (c) => expectOracle(c, form)),
        { numRuns: 60 },
      );
    });

    test.each<Case>([
      { N: 1, D: 33, E: 16, I: 21, k: 2, seed: 1, biased: true, options: alone },
      { N: 300, D: 40, E: 6, I: 50, k: 2, seed: 2, biased: true, options: alone },
      { N: 70, D: 17, E: 64, I: 9, k: 8, seed: 3, biased: true, options: { ...alone, groups: 8, topGroups: 3 } },
    ])('equals the oracle at N=$N D=$D E=$E I=$I k=$k', (c) => expectOracle(c, form));
  });

  test('one token reads the experts it chose and no other: the rest may be NaN', () => {
    inScope(() => {
      const c = { N: 1, D: 12, E: 8, I: 10, k: 2, seed: 4, biased: false, options: alone };
      const { inputs } = draw(c);
      const scores = Array.from(values(inputs.logits));
      const chosen = [...scores.keys()].sort((a, b) => scores[b] - scores[a]).slice(0, 2);
      const kept = tf.tensor(
        scores.map((_, e) => (chosen.includes(e) ? 1 : Number.NaN)),
        [8, 1, 1],
      );
      const call = (all: Inputs) => mixtureOfExperts(all, { numExpertsPerToken: 2 });
      const want = call(inputs);
      const [w1, w2, w3] = [inputs.w1, inputs.w2, inputs.w3].map((w) => tf.mul(w, kept));
      expect(Array.from(values(call({ ...inputs, w1, w2, w3 })))).toEqual(Array.from(values(want)));
    });
  });
});

describe.each(forms)('%s form', (form) => {
  test('of equal scores the first experts are chosen', () => {
    inScope(() => {
      const [E, N] = [6, 3];
      const inputs = { ...draw({ N, D: 4, E, I: 5, k: 2, seed: 5, biased: true, options: alone }).inputs };
      inputs.logits = tf.zeros([N, E]);
      inputs.bias = tf.tensor1d([0, 1, 0, 1, 1, 0]);
      const loadOf = (bias: tf.Tensor) =>
        mixtureOfExperts({ ...inputs, bias }, { numExpertsPerToken: 2, form }).sum() as tf.Scalar;
      expect(Array.from(values(tf.grad(loadOf)(inputs.bias)))).toEqual([-6, 12, -6, 12, -6, -6]);
    });
  });

  test('the load is the same whatever comes from above', () => {
    inScope(() => {
      const sample = draw({ N: 20, D: 4, E: 5, I: 3, k: 2, seed: 6, biased: true, options: alone });
      const c = { ...{ N: 20, D: 4, E: 5, I: 3, k: 2, seed: 6 }, biased: true, options: alone };
      const loads = [0, 1, -3].map((factor) => {
        const { grads } = run({ ...sample, dy: tf.mul(sample.dy, factor) }, c, form);
        return Array.from(values(grads.bias));
      });
      expect(loads[1].some((n) => n !== 0)).toBe(true);
      expect(loads[0]).toEqual(loads[1]);
      expect(loads[2]).toEqual(loads[1]);
    });
  });

  test('axes before the last are kept, and nothing is left behind', () => {
    const [x, logits, w1, w2, w3] = randomTensors(7, [2, 3, 4], [2, 3, 5], [5, 6, 4], [5, 4, 6], [5, 6, 4]);
    const before = tf.memory();
    const f = (x: tf.Tensor, logits: tf.Tensor, w1: tf.Tensor) =>
      mixtureOfExperts({ x, logits, w1, w2, w3 }, { numExpertsPerToken: 3, form });
    const y = f(x, logits, w1);
    expect(y.shape).toEqual([2, 3, 4]);
    y.dispose();
    tf.tidy(() => void tf.grads(f)([x, logits, w1], tf.ones([2, 3, 4])));
    expect(tf.memory()).toMatchObject({ numTensors: before.numTensors, numBytes: before.numBytes });
    tf.dispose([x, logits, w1, w2, w3]);
  });

  test('scores that are all 0 give 0, and no NaN in a gradient', () => {
    inScope(() => {
      const c = { N: 2, D: 3, E: 4, I: 3, k: 2, seed: 8, biased: true, options: alone };
      const sample = draw(c);
      sample.inputs.logits = tf.fill([2, 4], -1e30);
      const { outputs, grads } = run(sample, c, form);
      expectClose('y', outputs[0], new Float32Array(6), 0);
      for (const gradient of Object.values(grads)) expect(values(gradient)).not.toContain(Number.NaN);
    });
  });

  test('a NaN in x or in a logit of a token shows in that token alone', () => {
    inScope(() => {
      const { inputs } = draw({ N: 5, D: 3, E: 4, I: 3, k: 2, seed: 9, biased: false, options: alone });
      for (const name of ['x', 'logits'] as const) {
        const poisoned = inputs[name].bufferSync();
        poisoned.set(Number.NaN, 3, 2);
        const y = values(mixtureOfExperts({ ...inputs, [name]: poisoned.toTensor() }, { numExpertsPerToken: 2, form }));
        expect(Array.from({ length: 5 }, (_, n) => Number.isNaN(y[3 * n]))).toEqual([false, false, false, true, false]);
      }
    });
  });
});

test('products are made for chosen experts alone', () => {
  inScope(() => {
    const { inputs } = draw({ N: 1, D: 8, E: 32, I: 8, k: 3, seed: 10, biased: true, options: alone });
    const product = vi.spyOn(installedKernels() as KernelExports, 'product');
    mixtureOfExperts(inputs, { numExpertsPerToken: 3 });
    expect(product.mock.calls).toHaveLength(9);
    product.mockRestore();
  });
});

describe('errors name the op, what was expected and what came', () => {
  const inputs = () => draw({ N: 2, D: 3, E: 4, I: 5, k: 2, seed: 1, biased: true, options: alone }).inputs;
  test.each<[Record<string, number[]>, object, string]>([
    [{ w2: [4, 5, 3] }, {}, 'w2 must have shape [4,3,5], got [4,5,3]'],
    [{ logits: [2, 5] }, {}, 'logits must have shape [2,4], got [2,5]'],
    [{ bias: [5] }, {}, 'bias must have shape [4], got [5]'],
    [{}, { numExpertsPerToken: 0 }, 'numExpertsPerToken must be a positive integer, got 0'],
    [{}, { numExpertsPerToken: 5 }, 'numExpertsPerToken must be at most the 4 experts there are to choose from, got 5'],
    [{}, { numExpertGroup: 3 }, 'numExpertGroup must divide the number of experts, 4, got 3'],
    [{}, { numExpertGroup: 2, topkGroup: 3 }, 'topkGroup must be at most numExpertGroup, 2, got 3'],
    [{}, { routedScalingFactor: Number.NaN }, 'routedScalingFactor must be a finite number, got NaN'],
  ])('%j %j', (shapes, options, message) => {
    inScope(() => {
      const changed = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, tf.zeros(shape)]));
      const call = () => mixtureOfExperts({ ...inputs(), ...changed }, { numExpertsPerToken: 2, ...options });
      expect(call).toThrow(`mixtureOfExperts: ${message}`);
    });
  });
});
