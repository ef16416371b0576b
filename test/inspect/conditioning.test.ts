/** What is measured of a model with layers of Gated KalmaNet, against the oracle of the solve and decays known in advance. */
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { formatConditioning, measureConditioning, plotConditioning } from '../../src/inspect/index.js';
import { chebyshevResiduals, regressionsAt, relativeResidual, residualBound } from '../../src/inspect/ridge.js';
import { quantile } from '../../src/inspect/statistics.js';
import { CausalLM, type ModelConfigInput } from '../../src/models/index.js';
import { idTensor, lively, tokenIds } from '../models/support.js';
import { chebyshevBound, chebyshevSolve, frobenius, gatedKalmaNetOracle, residual } from '../oracle/gatedKalmaNet.js';
import { normal } from '../support/tensors.js';

const config: ModelConfigInput = {
  ...lively,
  ...{ vocabSize: 37, hiddenSize: 16, numLayers: 3, mlp: { intermediateSize: 24 } },
  mixers: ['gka', 'softmax_attention', { type: 'gka', numIterations: 4, ridgeRatio: 0.1 }],
  mixerDefaults: { gka: { numHeads: 3, headDim: 5 } },
};

describe('the float64 regressions', () => {
  const [T, D, r] = [9, 4, 0.03];
  const [q, k] = [1, 2].map((seed) => Float64Array.from(normal(seed, T * D)));
  const g = Float64Array.from(normal(3, T), (x) => -Math.abs(x));
  g[5] = Number.NEGATIVE_INFINITY;
  const positions = [0, 4, 5, 8];

  test('are those of the recurrence', () => {
    const [v, alpha] = [new Float64Array(T * D), new Float64Array(T)];
    for (const [i, { H, norm, lambda, q: query }] of regressionsAt({ q, k, g }, positions, r).entries()) {
      const at = positions[i] + 1;
      const cut = { q: q.slice(0, at * D), k: k.slice(0, at * D), v, g: g.slice(0, at), alpha };
      const { finalKk } = gatedKalmaNetOracle(cut, { B: 1, T: at, H: 1, K: D, V: D });
      expect(Math.max(...H.map((x, j) => Math.abs(x - finalKk[j])))).toBeLessThan(1e-14);
      expect(norm).toBeCloseTo(frobenius(finalKk), 13);
      expect(lambda).toBeCloseTo(r * norm, 13);
      expect(query).toEqual(q.slice(positions[i] * D, at * D));
    }
  });

  test('the iteration leaves what the oracle leaves, and no more than the bound', () => {
    for (const regression of regressionsAt({ q, k, g }, positions, r)) {
      const { H, norm, lambda, q: query } = regression;
      for (const [steps, left] of chebyshevResiduals(regression, 12).entries()) {
        const x = chebyshevSolve(H, norm, query, r, steps);
        const want = frobenius(residual(H, lambda, x, query)) / frobenius(query);
        expect(left).toBeCloseTo(want, 12);
        expect(relativeResidual(regression, x)).toBeCloseTo(want, 14);
        expect(left).toBeLessThanOrEqual(residualBound(r, steps) * (1 + 1e-12));
      }
    }
    expect(residualBound(0.02, 30)).toBeCloseTo(chebyshevBound(0.02, 30), 15);
    expect(residualBound(0.02, 30)).toBeCloseTo(3.2e-4, 5);
  });

  test('where nothing is stored the ridge is that of norm 1, and is solved at once', () => {
    const nothing = { q: Float64Array.of(3, 4), k: new Float64Array(2), g: Float64Array.of(0) };
    const [regression] = regressionsAt(nothing, [0], 0.5);
    expect(regression).toMatchObject({ norm: 1, lambda: 0.5 });
    expect(relativeResidual(regression, Float64Array.of(6, 8))).toBe(0);
  });
});

describe('of a model', () => {
  let model: CausalLM;
  beforeAll(() => {
    model = new CausalLM(config, { seed: 3 });
  });
  afterAll(() => model.dispose());

  test('each layer of gka is measured where it was asked for, within its bounds, and nothing is left behind', async () => {
    const before = tf.memory().numTensors;
    const { tokens, positions, layers } = await measureConditioning(model, tokenIds(1, 50), { positions: 7 });
    expect(tf.memory().numTensors).toBe(before);
    expect([tokens, positions]).toEqual([50, [7, 14, 21, 28, 35, 42, 49]]);
    expect(layers).toMatchObject([
      { layer: 0, heads: 3, numIterations: 30, ridgeRatio: 0.02, solver: 'chebyshev', condition: { bound: 51 } },
      { layer: 2, heads: 3, numIterations: 4, ridgeRatio: 0.1, condition: { bound: 11 } },
    ]);
    for (const { residual, condition, byIterations, numIterations, halfLives } of layers) {
      expect(condition.max).toBeLessThanOrEqual(condition.bound);
      expect(condition.median).toBeGreaterThan(2);
      expect(residual.max).toBeLessThanOrEqual(1.01 * residual.bound);
      expect(byIterations.max).toHaveLength(31);
      // what the layer computes in float32 leaves what the iteration leaves in float64, but for roundings
      expect(Math.abs(residual.max / byIterations.max[numIterations] - 1)).toBeLessThan(0.05);
      expect(residual.median).toBeLessThan(residual.max);
      expect(halfLives).toHaveLength(3);
      for (const { p10, median, p90 } of halfLives)
        expect([p10, median, p90].sort((a, b) => a - b)).toEqual([p10, median, p90]);
    }
    expect(layers[0].residual.bound).toBeLessThan(layers[1].residual.bound);
  });

  test('half-lives are those of the decays', async () => {
    const slow = new CausalLM(config, { seed: 3 });
    const set = (name: string, numbers: number[]) => {
      const weight = slow.weights.get(`model.layers.0.attn.${name}`) as tf.Variable;
      tf.tidy(() => weight.assign(tf.tensor(numbers, weight.shape)));
    };
    set('a_proj.weight', Array(3 * 16).fill(0));
    set('dt_bias', Array(3).fill(Math.log(Math.E - 1))); // a step of 1
    set('A_log', [0.5, 0.05, 0.001].map(Math.log));
    const { layers } = await measureConditioning(slow, tokenIds(2, 20));
    for (const [i, rate] of [0.5, 0.05, 0.001].entries())
      for (const tokens of Object.values(layers[0].halfLives[i])) expect(tokens / (Math.LN2 / rate)).toBeCloseTo(1, 5);
    slow.dispose();
  });

  test('without decay nothing is forgotten; the exact solver leaves roundings', async () => {
    const mixers: ModelConfigInput['mixers'] = [{ type: 'gka', useForgettingGate: false, solver: 'exact' }];
    const still = new CausalLM({ ...config, numLayers: 1, mixers }, { seed: 4 });
    const { layers } = await measureConditioning(still, tokenIds(3, 12), { positions: 40 });
    expect(layers[0].halfLives[0]).toEqual({ p10: Infinity, median: Infinity, p90: Infinity });
    expect(layers[0].residual.max).toBeLessThan(1e-5);
    expect(layers[0].residual.bound).toBe(0);
    still.dispose();
  });

  test('the mixers are shown what the layers before them made', () => {
    const ids = tf.keep(idTensor(tokenIds(5, 9)));
    const before = tf.memory().numTensors;
    const seen: [number, string, number[]][] = [];
    model.watchMixers(ids, (layer, mixer, x) => seen.push([layer, mixer.getClassName(), x.shape]));
    expect(tf.memory().numTensors).toBe(before);
    const shape = [1, 9, 16];
    expect(seen).toEqual([
      [0, 'GatedKalmaNet', shape],
      [1, 'SoftmaxAttention', shape],
      [2, 'GatedKalmaNet', shape],
    ]);
    ids.dispose();
  });

  test('a table for people, a picture', async () => {
    const measured = await measureConditioning(model, tokenIds(1, 50), { positions: 7 });
    const text = formatConditioning(measured);
    expect(text).toMatch(/^50 tokens read, 7 of them looked at in every head$/m);
    expect(text).toMatch(/^ +0 +3 +30 steps +0\.02 +\d\.\de-4 +\d\.\de-4 +3\.2e-4 +\d\d\.\d +\d\d\.\d +51\.0$/m);
    expect(text).toMatch(/^ +2 +3 +4 steps +0\.1 +\d\.\de-\d +\d\.\de-\d +8\.9e-2 /m);
    expect(text.match(/^ +[02] +[012] +\S+ +\S+ +\S+$/gm)).toHaveLength(6);
    const svg = await plotConditioning(measured, 'a model');
    for (const words of [
      '<svg',
      'a model',
      'layer 0',
      'layer 2',
      'bound at ridge 0.02',
      'bound at ridge 0.1',
      'Chebyshev steps',
    ])
      expect(svg).toContain(words);
    expect(svg).not.toMatch(/NaN|undefined/);
  });
});

test('a model without such a layer, no token and no position are refused', async () => {
  const model = new CausalLM({ ...config, mixers: ['gla', 'softmax_attention'] });
  await expect(measureConditioning(model, [1, 2])).rejects.toThrow(
    'measureConditioning: the model has no layer of gka, whose conditioning this is; its layers are of gla, softmax_attention',
  );
  await expect(measureConditioning(model, [])).rejects.toThrow('there must be a token to read, got none');
  await expect(measureConditioning(model, [1], { positions: 0 })).rejects.toThrow(/positions must be .*, got 0/);
  model.dispose();
});

test('quantiles', () => {
  expect([0, 0.5, 1, 0.25].map((p) => quantile([4, 1, 3, 2], p))).toEqual([1, 2.5, 4, 1.75]);
  expect(quantile([7], 0.9)).toBe(7);
  expect([0.6, 0.9].map((p) => quantile([1, 2, Infinity], p))).toEqual([2, Infinity]);
});
