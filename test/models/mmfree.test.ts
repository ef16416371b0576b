/** MatMul-free language models: stored logits, what is shared, what rounding hides. */
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadModelConfig } from '../../src/config/index.js';
import { useBackend } from '../../src/index.js';
import { CausalLM, describe as describeModel, type ModelConfigInput, WeightsError } from '../../src/models/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, values } from '../support/tensors.js';
import { idTensor, lively, tokenIds } from './support.js';

const mmfree = (sizes: ModelConfigInput): ModelConfigInput => ({
  ...sizes,
  mixers: ['mlgru'],
  mlp: { type: 'bit_glu', ...sizes.mlp },
  linear: 'bit',
  tieEmbeddings: false,
});

describe.each(['wasm', 'cpu'] as const)('stored language model on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  test.each(goldenEntries('mmfree_lm').map((entry) => [entry.file, entry] as const))('%s: logits', (_, entry) =>
    inScope(() => replay(entry)),
  );
});

function replay({ file, config, inputs, outputs, tolerances }: GoldenEntry): void {
  const golden = readGolden(file);
  const number = (name: string) => Number(config[name]);
  const names = Object.keys(inputs).filter((name) => name !== 'input_ids');
  const weights = new Map(
    names.map((name) => [name, { shape: golden[name].shape, data: values(golden[name]) as Float32Array }]),
  );
  const sizes = {
    ...{ vocabSize: number('vocab_size'), hiddenSize: number('hidden_size'), numLayers: number('num_hidden_layers') },
    ...{ mlp: { intermediateSize: number('intermediate_size') }, normEps: number('rms_norm_eps') },
  };
  const model = new CausalLM(mmfree(sizes), { weights });
  expect(Object.keys(outputs)).toEqual(['logits']);
  const { logits } = model.forward(tf.cast(golden.input_ids, 'int32'));
  expect(logits.shape).toEqual(golden.logits.shape);
  const want = values(golden.logits);
  const worst = Array.from(values(logits)).reduce((w, v, i) => Math.max(w, Math.abs(v - want[i])), 0);
  expect(worst).toBeLessThanOrEqual(tolerances.logits.max_abs);
  model.dispose();
}

const small = mmfree({ vocabSize: 37, hiddenSize: 16, numLayers: 3, mlp: { intermediateSize: 24 }, ...lively });

test('has the parameters of the published 370M model', () => {
  const config = mmfree({ vocabSize: 32_000, hiddenSize: 1024, numLayers: 24 });
  const { parameters, weights } = describeModel(config);
  expect(parameters.total).toBe(374_108_160);
  expect(parameters.embeddings).toBe(32_768_000);
  const norms = weights.filter(({ name }) => name.endsWith('norm.weight')).reduce((n, w) => n + w.parameters, 0);
  expect(norms).toBe(266_240);
});

test('the tiny model and its float twin have the same matrices', () => {
  const shapes = (name: string) => {
    const { parameters, weights, ternary } = describeModel(loadModelConfig(`configs/models/${name}.json`));
    const matrices = weights.filter(({ name }) => !name.includes('norm'));
    return { total: parameters.total, numbers: matrices.reduce((n, w) => n + w.parameters, 0), ternary };
  };
  const [bit, float] = ['matmulfree-tiny', 'matmulfree-float-tiny'].map(shapes);
  expect(bit).toMatchObject({ total: 923_904, ternary: { parameters: 884_736 } });
  expect(float).toEqual({ total: 919_680, numbers: bit.numbers, ternary: undefined });
});

test('all layers but the first learn one table of lower bounds', () =>
  inScope(() => {
    const model = new CausalLM(small);
    const table = model.weights.get('model.lower_bounds') as tf.Variable;
    expect(table.shape).toEqual([3, 16]);
    expect([...model.weights.keys()].filter((name) => name.includes('lower_bounds'))).toHaveLength(1);
    const ids = idTensor(tokenIds(1, 12));
    const { grads } = tf.variableGrads(() => model.loss(ids, ids), [...model.weights.values()]);
    expect(Array.from(values(grads[table.name])).some((g) => g !== 0)).toBe(true);
    const free = new CausalLM({ ...small, mixers: [{ type: 'mlgru', useLowerBound: false }] });
    expect(free.weights.has('model.lower_bounds')).toBe(false);
    for (const m of [model, free]) m.dispose();
  }));

test('the loss is that of the logits, in one piece or many', () =>
  inScope(() => {
    const model = new CausalLM(small);
    const [ids, targets] = [idTensor(tokenIds(1, 12)), idTensor(tokenIds(2, 12))];
    const logs = tf.logSoftmax(tf.reshape(model.forward(ids).logits, [12, 37]));
    const want = tf.neg(tf.mean(tf.sum(tf.mul(logs, tf.oneHot(tf.reshape(targets, [12]), 37)), 1)));
    expectClose('loss', model.loss(ids, targets), want, 1e-6);
    model.dispose();
  }));

test('with linear: bit the projections of dense mixers are ternary too, and every weight learns', () =>
  inScope(() => {
    const mixers: ModelConfigInput['mixers'] = [{ type: 'gla', numHeads: 2 }, 'softmax_attention'];
    const sizes = { vocabSize: 37, hiddenSize: 16, numLayers: 2, mlp: { intermediateSize: 24 } };
    const model = new CausalLM({ ...sizes, ...lively, mixers, linear: 'bit' });
    const projections = ['attn.q_proj', 'attn.o_proj', 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'];
    for (const layer of [0, 1])
      for (const name of projections)
        expect(model.weights.has(`model.layers.${layer}.${name}.norm.weight`), name).toBe(true);
    const [ids, targets] = [idTensor(tokenIds(1, 12)), idTensor(tokenIds(2, 12))];
    const { grads } = tf.variableGrads(() => model.loss(ids, targets), [...model.weights.values()]);
    for (const [name, w] of model.weights)
      expect(
        Array.from(values(grads[w.name])).some((g) => g !== 0),
        name,
      ).toBe(true);
    model.dispose();
  }));

test('a tied head stays dense', () => {
  const model = new CausalLM({ ...small, tieEmbeddings: true });
  expect([...model.weights.keys()].filter((name) => name.startsWith('lm_head'))).toEqual([]);
  model.dispose();
});

test('weights without the norm of the head are refused', () => {
  const model = new CausalLM(small);
  const weights = new Map(
    [...model.weights].map(([name, w]) => [name, { shape: w.shape, data: values(w) as Float32Array }]),
  );
  weights.delete('lm_head.norm.weight');
  expect(() => model.loadWeights(weights)).toThrow(WeightsError);
  model.dispose();
});

describe('starts as published', () => {
  const sizes = { vocabSize: 96, hiddenSize: 48, numLayers: 3, tieEmbeddings: false, mixers: ['mlgru' as const] };
  const ternary: ModelConfigInput = { ...sizes, linear: 'bit', mlp: { type: 'bit_glu', intermediateSize: 64 } };
  const float: ModelConfigInput = {
    ...sizes,
    mixers: [{ type: 'mlgru', linear: 'dense' }],
    mlp: { intermediateSize: 64 },
  };

  test.each(Object.entries({ ternary, float }))('%s', (_, config) => {
    const model = new CausalLM(config, { seed: 4 });
    for (const [name, weight] of model.weights) {
      const data = Array.from(weight.dataSync());
      const root = Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length);
      const near = (want: number) =>
        expect(Math.abs(root / want - 1), name).toBeLessThan(5 / Math.sqrt(2 * data.length));
      if (name.includes('norm')) expect(new Set(data), name).toEqual(new Set([1]));
      else if (name === 'model.lower_bounds') expect(new Set(data), name).toEqual(new Set([0]));
      else if (name.includes('.attn.')) {
        const bound = 2 ** -2.5 * Math.sqrt(6 / (48 + 48)); // uniform: a deviation of bound / sqrt(3)
        near(bound / Math.sqrt(3));
        expect(Math.max(...data.map(Math.abs)), name).toBeLessThan(bound * (1 + 1e-6));
        expect(Math.max(...data), name).toBeGreaterThan(0.98 * bound);
        expect(Math.min(...data), name).toBeLessThan(-0.98 * bound);
      } else near(name.includes('down_proj') ? 0.02 / Math.sqrt(2 * 3) : 0.02);
    }
    model.dispose();
  });

  test('twins start with the same numbers, and other models as before', () => {
    const start = (config: ModelConfigInput) => {
      const model = new CausalLM(config, { seed: 4 });
      const weights = new Map([...model.weights].map(([name, w]) => [name, Array.from(w.dataSync())]));
      model.dispose();
      return weights;
    };
    const [bit, dense] = [ternary, float].map(start);
    const same = [
      'model.embeddings.weight',
      'model.layers.1.attn.f_proj.weight',
      'model.layers.2.mlp.down_proj.weight',
    ];
    for (const name of same) expect(bit.get(name), name).toEqual(dense.get(name));
    const deviation = (weights: typeof bit, layer: number) => {
      const data = weights.get(`model.layers.${layer}.mlp.down_proj.weight`) as number[];
      return Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length);
    };
    const mixed = start({ ...sizes, mixers: [{ type: 'mlgru', linear: 'dense' }, 'softmax_attention'] });
    expect(deviation(mixed, 0)).toBeCloseTo(0.02 / Math.sqrt(6), 3);
    expect(deviation(mixed, 1)).toBeCloseTo(0.02, 3);
  });
});
