/** Layer norm and batch norm: the same formula with statistics over rows or over columns. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { batchNorm, layerNorm } from '../../src/chunked/index.js';
import { standardiseOracle } from '../oracle/primitives.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
type Form = (typeof forms)[number];
const kinds = ['layerNorm', 'batchNorm in training', 'batchNorm'] as const;
type Kind = (typeof kinds)[number];

interface Inputs {
  x: tf.Tensor;
  weight?: tf.Tensor;
  bias?: tf.Tensor;
  runningMean: tf.Tensor;
  runningVar: tf.Tensor;
}

interface Drawn {
  inputs: Inputs;
  dy: tf.Tensor;
}

/** Rows of the given shape with a mean and a spread; `affine`: with weight and bias. */
function draw(shape: number[], { seed = 1, mean = 0, spread = 1, affine = true }): Drawn {
  const D = shape[shape.length - 1];
  const [x, dy, weight, bias, runningMean, logVar] = randomTensors(seed, shape, shape, [D], [D], [D], [D]);
  return {
    inputs: {
      x: tf.add(tf.mul(x, spread), mean),
      ...(affine && { weight, bias }),
      ...{ runningMean: tf.add(runningMean, mean), runningVar: tf.mul(tf.exp(logVar), spread ** 2) },
    },
    dy,
  };
}

function run(kind: Kind, { inputs, dy }: Drawn, form: Form) {
  const { runningMean, runningVar, ...others } = inputs;
  const op = (all: Inputs) =>
    kind === 'layerNorm' ? layerNorm(all, { form }) : batchNorm(all, { training: kind !== 'batchNorm', form });
  const given = kind === 'layerNorm' ? others : { ...others, runningMean, runningVar };
  return outputsAndGrads((all) => [op(all as unknown as Inputs)], given as unknown as Record<string, tf.Tensor>, [dy]);
}

/** The kernel of batchNorm has its means to more than float32; elsewhere a rounded mean shifts all else. */
function expectOracle(kind: Kind, drawn: Drawn, form: Form, tolerance: number): void {
  const { x, weight, bias, runningMean, runningVar } = drawn.inputs;
  const [D, over] = [dimension(x), kind === 'layerNorm' ? 'layer' : 'batch'] as const;
  const given = kind === 'batchNorm' && { mean: values(runningMean), variance: values(runningVar) };
  const arrays = { x: values(x), weight: weight && values(weight), bias: bias && values(bias), ...given };
  const want = standardiseOracle(arrays, { D, eps: 1e-5, over }, values(drawn.dy));
  const { outputs, grads } = run(kind, drawn, form);
  const exact = form === 'auto' && kind !== 'layerNorm';
  const limit = tolerance * (exact ? 1 : 1 + want.offset);
  const rows = 8 * Math.sqrt(x.size / D); // what the roundings of so many terms add up to
  expectClose(`${kind} y`, outputs[0], want.y, limit);
  expectClose(`${kind} dx`, grads.x, want.dx, limit, Math.max(1, want.dxTerms)); // terms of both signs cancel
  if (weight) expectClose(`${kind} dWeight`, grads.weight, want.dWeight, limit, rows);
  if (bias) expectClose(`${kind} dBias`, grads.bias, want.dBias, tolerance, rows);
  if (kind === 'layerNorm') return;
  expectClose(`${kind} dRunningMean`, grads.runningMean, want.mean, tolerance, 1e-6);
  expectClose(`${kind} dRunningVar`, grads.runningVar, want.variance, limit, 1e-12);
}

const dimension = (x: tf.Tensor) => x.shape[x.shape.length - 1] as number;

describe.each(kinds)('%s', (kind) => {
  test.each(forms)('%s form equals the oracle in output and gradients', (form) => {
    fc.assert(
      fc.property(
        fc.record({
          lead: fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 }),
          D: fc.integer({ min: 1, max: 41 }),
          seed: fc.nat(1e6),
          spread: fc.constantFrom(0.1, 1, 300),
          affine: fc.boolean(),
        }),
        ({ lead, D, ...of }) => inScope(() => expectOracle(kind, draw([...lead, D], of), form, 3e-6)),
      ),
      { numRuns: 40 },
    );
  });

  test.each(forms)('%s form with a mean of 1000 spreads', (form) => {
    inScope(() => expectOracle(kind, draw([30, 33], { mean: 1000 }), form, 1e-6));
  });

  test('sums over 20,000 rows keep float32 accuracy', () => {
    inScope(() => {
      const drawn = draw([20_000, 6], { mean: 50 });
      // Terms of one sign, so that the sums grow past what a float32 running sum can add to.
      expectOracle(kind, { ...drawn, dy: tf.add(tf.abs(drawn.dy), 0.5) }, 'auto', 5e-7);
    });
  });

  test('rows of 5000 keep float32 accuracy', () =>
    inScope(() => expectOracle(kind, draw([3, 5000], {}), 'auto', 1e-6)));

  test.each(forms)('%s form: values that are all the same give the bias, and stay finite', (form) => {
    inScope(() => {
      const { inputs, dy } = draw([4, 6], {});
      const same = { ...inputs, x: tf.fill([4, 6], 0.1), runningMean: tf.fill([6], 0.1), runningVar: tf.zeros([6]) };
      const { outputs, grads } = run(kind, { inputs: same, dy }, form);
      const bias = tf.tile(tf.expandDims(inputs.bias as tf.Tensor, 0), [4, 1]);
      expectClose('y', outputs[0], bias, 1e-5);
      for (const gradient of Object.values(grads))
        expect(Array.from(values(gradient)).every(Number.isFinite)).toBe(true);
    });
  });

  test.each(forms)('%s form: NaN spreads over what it is a statistic of, and no further', (form) => {
    inScope(() => {
      const { inputs, dy } = draw([3, 5], {});
      const x = tf.where(
        tf
          .oneHot(tf.tensor1d([7], 'int32'), 15)
          .reshape([3, 5])
          .cast('bool'),
        Number.NaN,
        inputs.x,
      );
      const y = values(run(kind, { inputs: { ...inputs, x }, dy }, form).outputs[0]);
      const bad = { layerNorm: [5, 6, 7, 8, 9], 'batchNorm in training': [2, 7, 12], batchNorm: [7] }[kind];
      expect(Array.from(y, (v, i) => (Number.isNaN(v) ? i : -1)).filter((i) => i >= 0)).toEqual(bad);
    });
  });

  test.each(forms)('%s form leaves no tensor behind', (form) => {
    const { inputs, dy } = draw([4, 7], {});
    const { runningMean, runningVar, ...others } = inputs;
    const before = tf.memory().numTensors;
    const y =
      kind === 'layerNorm'
        ? layerNorm(others, { form })
        : batchNorm({ ...others, runningMean, runningVar }, { training: kind !== 'batchNorm', form });
    y.dispose();
    tf.tidy(() => void run(kind, { inputs, dy }, form));
    expect(tf.memory().numTensors).toBe(before);
  });
});

test.each(forms)('the statistics of batchNorm do not depend on the gradient on y (%s form)', (form) => {
  inScope(() => {
    const { inputs, dy } = draw([8, 5], {});
    for (const kind of ['batchNorm', 'batchNorm in training'] as const) {
      const of = (upstream: tf.Tensor) => {
        const { grads } = run(kind, { inputs, dy: upstream }, form);
        return [grads.runningMean, grads.runningVar].map((t) => Array.from(values(t)));
      };
      expect(of(tf.zerosLike(dy))).toEqual(of(dy));
    }
  });
});

test('errors name the op, what was expected and what came', () => {
  const [x, wrong, right] = randomTensors(6, [2, 4], [5], [4]);
  expect(() => layerNorm({ x, weight: wrong })).toThrow('layerNorm: weight must have shape [4], got [5]');
  expect(() => layerNorm({ x, bias: wrong })).toThrow('layerNorm: bias must have shape [4], got [5]');
  expect(() => layerNorm({ x }, { eps: -1 })).toThrow('layerNorm: eps must be zero or a positive number, got -1');
  const running = { runningMean: right, runningVar: right };
  expect(() => batchNorm({ x, ...running, runningVar: wrong })).toThrow(
    'batchNorm: runningVar must have shape [4], got [5]',
  );
  expect(() => batchNorm({ x, ...running, bias: wrong })).toThrow('batchNorm: bias must have shape [4], got [5]');
  expect(() => batchNorm({ x, runningMean: right } as never)).toThrow('batchNorm: runningVar is required');
});
