import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { GatedKalmaNet, type GatedKalmaNetOptions } from '../../src/layers/index.js';
import { gatedKalmaNetLayerOracle } from '../oracle/gatedKalmaNetLayer.js';
import { layerGrads } from '../support/layerGrads.js';
import { describeLayer } from '../support/layerProperties.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, normal, values } from '../support/tensors.js';

type Options = Partial<GatedKalmaNetOptions>;

const cases: Options[] = [
  {},
  { numKHeads: 1, useForgettingGateKk: false, solver: 'exact', form: 'recurrent', convBias: true, convSize: 3 },
  { numKHeads: 1, numVHeads: 1, kvProjRank: 3, useVConv: false, useOutputGate: false, chunkSize: 4, form: 'chunk' },
  { numVHeads: 1, kvProjRank: 2, kvLearnableResidual: true, useAlphaConnection: false, ridgeRatio: 0.1 },
  { useBetaGate: false, useForgettingGate: false, useShortConv: false, useScale: false },
  { numIterations: 0, useAlphaConnection: false },
];
const make = (options: object) => new GatedKalmaNet({ hiddenSize: 12, numHeads: 2, headDim: 6, ...options });

for (const options of cases)
  describeLayer({
    title: `GatedKalmaNet ${JSON.stringify(options)}`,
    make: (extra) => make({ ...options, ...extra }),
    covariances: ['kk'],
  });

/** Random weights everywhere, also where a start is zero. */
function lively(options: Options): GatedKalmaNet {
  const layer = make({ name: 'lively', ...options });
  layer.buildWith((name, { shape }) => {
    const drawn = normal([...name].length * 31 + name.charCodeAt(0), tf.util.sizeFromShape(shape), 0.5);
    return name === 'dt_bias' ? drawn.map((x) => x - 1) : name === 'o_norm.weight' ? drawn.map((x) => 1 + x) : drawn;
  });
  return layer;
}

describe('y and the states are those of float64', () => {
  const more: Options[] = [
    { solver: 'exact', useForgettingGateKk: false },
    { numIterations: 7, ridgeRatio: 0.2, normEps: 0.3 },
    { numHeads: 1, numKHeads: 2, numVHeads: 4 },
    { numHeads: 6, numKHeads: 2, numVHeads: 3, kvProjRank: 2, kvLearnableResidual: true },
  ];
  test.each([...cases, ...more])('%j', (options) =>
    inScope(() => {
      const T = 23;
      const layer = lively(options);
      const x = tf.tensor(normal(4, T * 12), [1, T, 12]);
      const weights = Object.fromEntries([...layer.weightsByName()].map(([name, w]) => [name, values(w)]));
      const o = layer.options;
      const heads = { q: o.numHeads, k: o.numKHeads ?? o.numHeads, v: o.numVHeads ?? o.numHeads };
      const { numIterations, ridgeRatio, solver, useForgettingGateKk: decayKk } = o;
      const want = gatedKalmaNetLayerOracle(
        values(x),
        weights,
        { T, headDim: 6, heads },
        {
          ...{ bareV: !o.useVConv, normEps: o.normEps },
          recurrence: { numIterations, ridgeRatio, solver, decayKk, scale: o.useScale ? 6 ** -0.5 : 1 },
        },
      );
      const { y, state } = layer.forward(x);
      expectClose('kk', values(state.kk), want.finalKk, 2e-6);
      expectClose('kv', values(state.kv), want.finalKv, 2e-6);
      expectClose('y', values(y), want.y, 5e-5); // a norm follows a solve of condition 51; worst seen 1.3e-5
      layer.dispose();
    }),
  );
});

test('lambdaGradient changes gradients, not outputs', () =>
  inScope(() => {
    const x = tf.tensor(normal(5, 2 * 9 * 12), [2, 9, 12]);
    const [through, constant] = [true, false].map((lambdaGradient) => layerGrads(lively({ lambdaGradient }), x));
    expectClose('y', constant.outputs.y, through.outputs.y, 0);
    const changed = tf.max(tf.abs(tf.sub(constant.grads['k_proj.weight'], through.grads['k_proj.weight'])));
    expect(values(changed)[0]).toBeGreaterThan(1e-2);
  }));

test('an input of zeros has finite outputs and gradients', () =>
  inScope(() => {
    const { outputs, grads } = layerGrads(lively({}), tf.zeros([1, 3, 12]));
    for (const [name, t] of Object.entries({ ...outputs, ...grads }))
      expect(Array.from(values(t)).every(Number.isFinite), name).toBe(true);
  }));

test('the low-rank map starts as plain sharing', () =>
  inScope(() => {
    const x = tf.tensor(normal(6, 5 * 12), [1, 5, 12]);
    const shared = { numKHeads: 1, numVHeads: 1, name: 'start' };
    const [plain, mapped] = [{}, { kvProjRank: 3, kvLearnableResidual: true }].map((o) => make({ ...shared, ...o }));
    expectClose('y', mapped.forward(x).y, plain.forward(x).y, 1e-6);
    for (const layer of [plain, mapped]) layer.dispose();
  }));

test('rates start uniform up to 16, steps uniform in the logarithm from 0.001 to 0.1', () =>
  inScope(() => {
    const layer = make({ numHeads: 200, headDim: 2, name: 'start' });
    const start = (name: string) => Array.from(values(layer.weightsByName().get(name) as tf.Tensor));
    const rates = start('A_log').map(Math.exp);
    const steps = start('dt_bias').map((x) => Math.log1p(Math.exp(x)));
    expect(Math.min(...rates)).toBeLessThan(0.8);
    expect(Math.max(...rates)).toBeGreaterThan(15);
    expect(Math.max(...rates)).toBeLessThanOrEqual(16.0001);
    expect(Math.min(...steps)).toBeGreaterThan(0.00099);
    expect(Math.max(...steps)).toBeLessThan(0.1001);
    const below = steps.filter((step) => step < 0.01).length / steps.length;
    expect(Math.abs(below - 0.5)).toBeLessThan(0.12);
    layer.dispose();
  }));

describe('errors name the layer, what was expected and what came', () => {
  test.each<[object, string]>([
    [{ hiddenSize: undefined }, 'hiddenSize must be a positive integer, got undefined'],
    [{ numKvHeads: 2 }, 'unknown option "numKvHeads"; the options are hiddenSize, headDim, numHeads, numKHeads,'],
    [{ headDim: 0 }, 'headDim must be a positive integer, got 0'],
    [{ numKHeads: 0 }, 'numKHeads must be a positive integer, got 0'],
    [{ numKHeads: 3 }, 'numHeads, numKHeads and numVHeads must divide the largest of them, got 2, 3, 2'],
    [{ numIterations: 1.5 }, 'numIterations must be an integer >= 0, got 1.5'],
    [{ ridgeRatio: 0 }, 'ridgeRatio must be positive, got 0'],
    [{ solver: 'cg' }, "solver must be one of 'chebyshev', 'exact', got 'cg'"],
    [{ kvProjRank: 2 }, 'kvProjRank sets apart heads that share k or v, but all 2 heads have their own; leave it null'],
    [{ numKHeads: 1, kvLearnableResidual: true }, 'kvLearnableResidual needs a kvProjRank, got null'],
    [{ normEps: 0 }, 'normEps must be positive, got 0'],
    [{ chunkSize: 0.5 }, 'chunkSize must be a positive integer, got 0.5'],
    [{ form: 'parallel' }, "form must be one of 'auto', 'chunk', 'recurrent', got 'parallel'"],
  ])('%j', (options, message) => {
    expect(() => make(options)).toThrow(`GatedKalmaNet: ${message}`);
    expect(() => make(options)).toThrow(RangeError);
  });
});
