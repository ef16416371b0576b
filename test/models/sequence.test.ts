/** Classifiers and regressors: what they compute, padding, training mode, errors. */
import * as tf from '@tensorflow/tfjs';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/backend/useBackend.js';
import { ConfigError } from '../../src/config/index.js';

import {
  CausalLM,
  type ClassifierConfigInput,
  resolveSequenceConfig,
  SequenceClassifier,
  SequenceRegressor,
  WeightsError,
} from '../../src/models/index.js';
import { createEncoder, encoderParts } from '../../src/models/sequence/encoder.js';
import { Rng } from '../../src/rng.js';

beforeAll(() => useBackend('wasm'));

const open: { dispose(): void }[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.dispose();
});

const base: ClassifierConfigInput = {
  ...{ modelType: 'sequence_classifier', numClasses: 3, inputSize: 2, hiddenSize: 8, numLayers: 2, chunkSize: 4 },
  mixers: [{ type: 'gla', numHeads: 2 }],
};

function classifier(settings: Partial<ClassifierConfigInput> = {}): SequenceClassifier {
  const model = new SequenceClassifier({ ...base, ...settings }, { seed: 5 });
  open.push(model);
  return model;
}

/** Numbers [B, T, 2] that are the same at every call. */
const numbers = (B: number, T: number, channels = 2) =>
  tf.tensor3d(new Rng('inputs').normalArray(B * T * channels), [B, T, channels]);
const ids = (B: number, T: number) =>
  tf.tensor2d(
    Array.from({ length: B * T }, (_, i) => (7 * i * i + i) % 5),
    [B, T],
    'int32',
  );

const close = (a: tf.Tensor, b: tf.Tensor) => {
  const [x, y] = [a.dataSync(), b.dataSync()];
  expect(a.shape).toEqual(b.shape);
  for (const [i, value] of x.entries()) expect(Math.abs(value - y[i])).toBeLessThan(2e-5 * (1 + Math.abs(y[i])));
};

describe('what is computed', () => {
  test.each([
    ['pre', undefined, 'layer'],
    ['pre', 6, 'rms'],
    ['post', undefined, 'batch'],
    ['post', 6, 'layer'],
  ] as const)('%s-norm, mlp %s, %s norm: as composed of the layers', (normPosition, width, norm) => {
    const mlp = width && { intermediateSize: width };
    const model = classifier({ normPosition, norm, mlp, pool: 'sum' });
    const encoder = createEncoder(model.config);
    const { layers } = encoderParts(encoder, model.config, 3);
    for (const [prefix, layer] of layers)
      layer.buildWith((name) => model.weights.get(`${prefix}.${name}`)!.dataSync() as Float32Array);
    const got = tf.tidy(() => {
      const x = numbers(2, 5);
      const run = (name: string, x: tf.Tensor) => layers.find(([prefix]) => prefix === name)![1].forward(x).y;
      let y = run('model.input_proj', x);
      for (const i of [0, 1])
        for (const part of mlp ? ['attn', 'mlp'] : ['attn']) {
          const [f, n] = [`model.layers.${i}.${part}`, `model.layers.${i}.${part}_norm`];
          y = normPosition === 'pre' ? tf.add(y, run(f, run(n, y))) : run(n, tf.add(y, run(f, y)));
        }
      if (normPosition === 'pre') y = run('model.norm', y);
      const [w, b] = ['head.weight', 'head.bias'].map((name) => model.weights.get(name) as tf.Tensor2D);
      return tf.add(tf.matMul(tf.sum(y, 1) as tf.Tensor2D, w, false, true), b);
    });
    close(model.forward(numbers(2, 5)), got);
    expect(layers.some(([prefix]) => prefix === 'model.norm')).toBe(normPosition === 'pre');
    for (const [, layer] of layers) layer.dispose();
  });

  test('pooling: mean, sum, first and last of the valid steps', () => {
    const pooled = (pool: ClassifierConfigInput['pool'], T: number, lengths?: number[]) =>
      classifier({ pool }).forward(numbers(1, 9).slice([0, 0, 0], [1, T, 2]), { lengths });
    close(pooled('first', 9), pooled('first', 1));
    close(pooled('sum', 1), pooled('mean', 1));
    close(pooled('last', 9, [4]), pooled('last', 4));
    const [one, sum, bias] = tf.tidy(() => [
      pooled('mean', 9),
      pooled('sum', 9),
      classifier().weights.get('head.bias')!,
    ]);
    close(tf.mul(tf.sub(one, bias), 9), tf.sub(sum, bias));
  });

  test.each(['mean', 'last', 'first', 'sum'] as const)('padding counts for nothing: %s', (pool) => {
    for (const settings of [{}, { inputSize: undefined, vocabSize: 5 }]) {
      const model = classifier({ pool, ...settings });
      const inputs = settings.vocabSize ? ids(3, 9) : numbers(3, 9);
      const lengths = [9, 1, 6];
      const rows = lengths.map((length, b) => model.forward(tf.slice(inputs, [b, 0], [1, length]) as tf.Tensor));
      close(model.forward(inputs, { lengths }), tf.concat(rows));
    }
  });

  test('a token is an embedding: the row of the table', () => {
    const model = classifier({ inputSize: undefined, vocabSize: 5, numLayers: 1 });
    expect([...model.weights.keys()].slice(0, 2)).toEqual([
      'model.embeddings.weight',
      'model.layers.0.attn_norm.weight',
    ]);
    expect(model.config.inputSize).toBeUndefined();
  });

  test('probabilities add up to 1, and the loss is that of the classes', () => {
    const model = classifier();
    const [inputs, classes] = [numbers(4, 6), tf.tensor1d([0, 2, 1, 2], 'int32')];
    const p = model.predict(inputs).arraySync();
    for (const row of p) expect(row.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
    const nats = [0, 2, 1, 2].reduce((sum, c, b) => sum - Math.log(p[b][c]) / 4, 0);
    const { loss, hits } = model.score(inputs, classes);
    expect(loss.dataSync()[0]).toBeCloseTo(nats, 5);
    expect(model.loss(inputs, classes).dataSync()[0]).toBeCloseTo(nats, 5);
    expect(hits.dataSync()[0]).toBe([0, 2, 1, 2].filter((c, b) => p[b][c] === Math.max(...p[b])).length);
  });

  test('a regressor: squared errors', () => {
    const { modelType: _, numClasses: _n, ...encoder } = base;
    const model = new SequenceRegressor({ ...encoder, modelType: 'sequence_regressor', numTargets: 2 });
    open.push(model);
    const [inputs, targets] = [numbers(3, 6), tf.tensor2d([1, 2, 3, 4, 5, 6], [3, 2])];
    const errors = tf.sub(model.predict(inputs), targets).dataSync();
    const squares = [0, 1].map((k) => [0, 1, 2].reduce((sum, b) => sum + errors[2 * b + k] ** 2, 0));
    expect(model.score(inputs, targets).dataSync()[0]).toBeCloseTo(squares[0], 4);
    expect(model.loss(inputs, targets).dataSync()[0]).toBeCloseTo((squares[0] + squares[1]) / 6, 4);
  });
});

describe('training mode', () => {
  const settings = { dropout: 0.5, norm: 'batch', mlp: { intermediateSize: 6 } } as const;
  const classes = () => tf.tensor1d([0, 2, 1, 2], 'int32');

  test('masks of dropout are those of the random numbers given; none without', () => {
    const model = classifier(settings);
    const logits = (training?: Rng) => Array.from(model.forward(numbers(4, 6), { training }).dataSync());
    expect(logits(new Rng(1))).toEqual(logits(new Rng(1)));
    expect(logits(new Rng(1))).not.toEqual(logits(new Rng(2)));
    expect(logits()).toEqual(logits());
    expect(logits()).not.toEqual(logits(new Rng(1)));
  });

  test('each half of each layer has masks of its own', () => {
    const model = classifier({ ...settings, norm: 'layer', numLayers: 1, mlp: undefined, dropout: 0.9 });
    const two = classifier({ ...settings, norm: 'layer', numLayers: 2, mlp: undefined, dropout: 0.9 });
    for (const m of [model, two]) // mixers that add nothing: what is left is not dropped
      for (const [name, weight] of m.weights) if (name.includes('.attn.')) weight.assign(tf.zerosLike(weight));
    close(model.forward(numbers(4, 6), { training: new Rng(1) }), model.forward(numbers(4, 6)));
    close(two.forward(numbers(4, 6), { training: new Rng(1) }), model.forward(numbers(4, 6)));
  });

  test('recomputed blocks: the same gradients to the last bit, statistics included', () => {
    const model = classifier(settings);
    const grads = (recompute: boolean) => {
      const f = () => model.loss(numbers(4, 6), classes(), { training: new Rng(1), recompute });
      const { value, grads } = tf.variableGrads(f, [...model.weights.values()]);
      return [value, ...[...model.weights.values()].map(({ name }) => grads[name])].map((x) =>
        Array.from(x.dataSync()),
      );
    };
    expect(grads(true)).toEqual(grads(false));
  });

  test('the gradient slots of running statistics hold those of the batch', () => {
    const model = classifier({ ...settings, numLayers: 1, mlp: undefined });
    const name = 'model.layers.0.attn_norm.running_mean';
    expect(model.runningRates.get(name)).toBeCloseTo(0.05, 10);
    const f = () => model.loss(numbers(4, 6), classes(), { training: new Rng(1) });
    const { grads } = tf.variableGrads(f, [model.weights.get(name)!]);
    const [w, b] = ['weight', 'bias'].map((part) => model.weights.get(`model.input_proj.${part}`) as tf.Tensor);
    const x = tf.add(tf.matMul(tf.reshape(numbers(4, 6), [24, 2]), w as tf.Tensor2D, false, true), b);
    close(Object.values(grads)[0], tf.mean(x, 0));
  });

  test('tensors are flat', () => {
    const model = classifier(settings);
    const [inputs, labels] = [numbers(4, 6), classes()];
    const step = () => {
      const f = () => model.loss(inputs, labels, { training: new Rng(1), lengths: [6, 3, 2, 1] });
      tf.dispose(tf.variableGrads(f, [...model.weights.values()]) as never);
      model.predict(inputs).dispose();
    };
    step();
    const before = tf.memory().numTensors;
    for (let i = 0; i < 3; i++) step();
    expect(tf.memory().numTensors).toBe(before);
    model.dispose();
    open.pop();
    expect(tf.memory().numTensors).toBe(before - model.weights.size);
  });
});

describe('errors', () => {
  test('inputs that do not fit', () => {
    const model = classifier();
    expect(() => model.forward(numbers(1, 4, 3))).toThrow(
      'SequenceClassifier: inputs must have shape [B,T,2], got [1,4,3]',
    );
    expect(() => model.forward(ids(1, 4))).toThrow('inputs must have shape [B,T,2], got [1,4]');
    expect(() => classifier({ inputSize: undefined, vocabSize: 5 }).forward(tf.zeros([1, 4]))).toThrow(
      'inputs must be int32, got float32',
    );
    for (const [lengths, told] of [
      [[4, 5], '5'],
      [[0, 4], '0'],
      [[1.5, 4], '1.5'],
      [[4], '1 of them'],
    ] as const)
      expect(() => model.forward(numbers(2, 4), { lengths })).toThrow(
        `lengths must be 2 integers from 1 to 4, got ${told}`,
      );
    expect(() => model.forward(numbers(2, 4), { intervals: tf.ones([2, 3]) })).toThrow(
      'intervals must have shape [2,4], got [2,3]',
    );
    expect(() => model.forward(numbers(2, 4), { intervals: tf.ones([2, 4]) })).toThrow(
      'no mixer of the model knows time',
    );
    expect(() => model.loss(numbers(2, 4), tf.zeros([2]))).toThrow(/classes must be int32/);
    expect(() => model.loss(numbers(2, 4), tf.zeros([3], 'int32'))).toThrow(/classes must have shape \[2\]/);
  });

  test('weights that do not fit', () => {
    const model = classifier();
    expect(() => model.loadWeights(new Map())).toThrow(WeightsError);
    expect(() => model.loadWeights(new Map())).toThrow(
      /SequenceClassifier\.loadWeights.*\n.*missing \(\d+\): model\.input_proj\.weight/,
    );
  });

  const problems = (raw: unknown) => {
    try {
      resolveSequenceConfig(raw);
    } catch (error) {
      if (error instanceof ConfigError) return error.problems.map(({ path, message }) => `${path}: ${message}`);
    }
    return [];
  };

  test('configs', () => {
    expect(problems({ ...base, vocabSize: 4 })).toEqual([
      'vocabSize: steps are either tokens or numbers: leave out vocabSize 4 or inputSize 2',
    ]);
    expect(problems({ ...base, numClasses: 1 })).toEqual(['numClasses: expected a number >= 2, got 1']);
    expect(problems({ ...base, numClasses: undefined })).toEqual(['numClasses: expected a number, got nothing']);
    expect(problems({ ...base, pol: 'mean' })).toEqual(['pol: unknown key (with value "mean"); did you mean "pool"?']);
    expect(problems({ ...base, mixers: [{ type: 'gla', numHeads: 3 }] })).toEqual([
      'mixers[0].expandK: numHeads 3 must divide hiddenSize 8 times expandK 0.5, which is 4',
      'mixers[0].expandV: numHeads 3 must divide hiddenSize 8 times expandV 1, which is 8',
    ]);
    const { numClasses: _, ...encoder } = base;
    expect(problems({ ...encoder, modelType: 'sequence_regressor', numTargets: 0 })).toEqual([
      'numTargets: expected a number > 0, got 0',
    ]);
    expect(() => new CausalLM(resolveSequenceConfig(base))).toThrow(/modelType: expected "causal_lm"/);
  });

  test('a complete config resolves to itself', () => {
    const config = resolveSequenceConfig(base);
    expect(config).toMatchObject({ norm: 'layer', normPosition: 'pre', finalNorm: true, dropout: 0, pool: 'mean' });
    expect(config.mixers.length).toBe(2);
    expect(resolveSequenceConfig(JSON.parse(JSON.stringify(config)))).toEqual(config);
    expect(resolveSequenceConfig({ ...base, normPosition: 'post' }).finalNorm).toBe(false);
    expect(resolveSequenceConfig({ ...base, inputSize: undefined }).inputSize).toBe(1);
  });
});
