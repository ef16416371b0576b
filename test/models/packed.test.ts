/** Packed models: the logits of the model that was packed, from an eighth of the bytes and less. */
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConfigError, resolveRunConfig } from '../../src/config/index.js';
import { useBackend } from '../../src/index.js';
import {
  CausalLM,
  describe as describeModel,
  formatDescription,
  generate,
  type ModelConfig,
  type ModelConfigInput,
  packModel,
  Session,
  WeightsError,
} from '../../src/models/index.js';
import { PrefillPool } from '../../src/prefill/index.js';
import { inScope } from '../support/opProperties.js';
import { tinyRun } from '../support/run.js';
import { expectClose, values } from '../support/tensors.js';
import { arrays, idTensor, lively, logitsInPieces, smallConfigs, tokenIds } from './support.js';

const mmfree: ModelConfigInput = { ...smallConfigs['ternary weights all over'], ...lively };
const sizes = { vocabSize: 37, hiddenSize: 16, mlp: { intermediateSize: 24 }, ...lively };
/** Every other mixer with projections, some with biases; a dense head. */
const others: ModelConfigInput = {
  ...sizes,
  linear: 'bit',
  numLayers: 6,
  mixers: [
    { type: 'gla', numHeads: 2 },
    { type: 'softmax_attention', numHeads: 4, numKvHeads: 2 },
    { type: 'kda', numHeads: 2, headDim: 6, gateBias: true },
    { type: 'gated_delta_net', numHeads: 2, headDim: 6 },
    { type: 'gka', numHeads: 2, headDim: 6, ridgeRatio: 0.5 },
    { type: 'mla', numHeads: 2, kvLoraRank: 8, qkNopeHeadDim: 6, qkRopeHeadDim: 4, vHeadDim: 5 },
  ],
};
const models = { mmfree, others };

/** Dense and packed twins, with norms and biases other than they start. */
function twins(config: ModelConfigInput, encoding: '2bit' | 'base3' = '2bit', seed = 3) {
  const whole = new CausalLM(config, { seed });
  for (const weight of whole.weights.values())
    if (weight.rank === 1)
      tf.tidy(() => weight.assign(tf.add(weight, tf.randomUniform(weight.shape, -0.3, 0.3, 'float32', seed))));
  const parts = packModel({ config: whole.config, weights: arrays(whole) }, encoding);
  return { whole, parts, packed: new CausalLM(parts.config, parts) };
}

const dispose = (...all: { dispose(): void }[]) => {
  for (const one of all) one.dispose();
};

describe.each(Object.entries(models))('%s on wasm', (_, config) => {
  test.each(['2bit', 'base3'] as const)(
    '%s: the same logits to the last bit, however the tokens are read',
    (encoding) =>
      inScope(() => {
        const { whole, packed } = twins(config, encoding);
        const ids = tokenIds(5, 23);
        for (const pieces of [[23], [9, 1, 13], Array(23).fill(1)])
          expect(logitsInPieces(packed, ids, pieces)).toEqual(logitsInPieces(whole, ids, pieces));
        expect(packed.numParameters).toBe(whole.numParameters);
        dispose(whole, packed);
      }),
  );

  test('no ternary matrix is held in another form, and none is left behind', () =>
    inScope(() => {
      const whole = new CausalLM(config, { seed: 3 });
      const parts = packModel({ config: whole.config, weights: arrays(whole) });
      const before = tf.memory();
      const packed = new CausalLM(parts.config, parts);
      for (const name of parts.packed.keys()) expect(packed.weights.has(name), name).toBe(false);
      const dense = [...packed.weights.values()].reduce((sum, { size }) => sum + 4 * size, 0);
      const rows = (columns: number) => 16 * Math.ceil(columns / 64);
      const matrices = [...parts.packed.values()].map(({ shape: [O, I] }) => O * rows(I) + 4);
      expect(tf.memory().numBytes - before.numBytes).toBe(dense + matrices.reduce((a, b) => a + b, 0));
      const [ids, held] = [tokenIds(5, 7), tf.memory().numTensors];
      logitsInPieces(packed, ids, [5, 1, 1]);
      expect(tf.memory().numTensors).toBe(held);
      packed.dispose();
      expect(tf.memory().numTensors).toBe(before.numTensors);
      whole.dispose();
    }));

  test('loss, and likeliest tokens', () =>
    inScope(() => {
      const { whole, packed } = twins(config);
      const [ids, targets] = [idTensor(tokenIds(1, 24), 2), idTensor(tokenIds(2, 24), 2)];
      expectClose('loss', packed.loss(ids, targets), whole.loss(ids, targets), 2e-6);
      const [mine, want] = [packed, whole].map((model) => model.score(ids, targets));
      expectClose('score', mine.loss, want.loss, 2e-6);
      expect(values(mine.hits)).toEqual(values(want.hits));
      const positions = Int32Array.of(3, 8);
      const some = tf.tensor1d([4, 9], 'int32');
      expectClose('asked', packed.loss(ids, some, { positions }), whole.loss(ids, some, { positions }), 2e-6);
      dispose(whole, packed);
    }));
});

describe('on cpu', () => {
  beforeAll(() => useBackend('cpu'));
  afterAll(() => useBackend('wasm'));

  test('the logits of the model that was packed', () =>
    inScope(() => {
      const { whole, packed } = twins(mmfree);
      const ids = idTensor(tokenIds(5, 11));
      expectClose('logits', packed.forward(ids).logits, whole.forward(ids).logits, 1e-6);
      dispose(whole, packed);
    }));
});

test('a session goes on from one to the other', async () => {
  const { whole, packed } = twins(mmfree);
  const read = async (start: CausalLM, end: CausalLM) => {
    const first = new Session(start);
    first.append(tokenIds(5, 9));
    first.read().dispose();
    const second = Session.fromBytes(await first.toBytes(), end);
    second.append(tokenIds(6, 4));
    const logits = second.read();
    const all = logits.dataSync().slice();
    dispose(logits, first, second);
    return all;
  };
  const want = await read(whole, whole);
  for (const [start, end] of [
    [packed, packed],
    [whole, packed],
    [packed, whole],
  ])
    expect(await read(start, end)).toEqual(want);
  dispose(whole, packed);
});

test('a prompt read on two cores', async () => {
  const { whole, packed } = twins(mmfree);
  const prefill = await PrefillPool.start(packed, { workers: 2 });
  const prompt = tokenIds(7, 3000);
  const tokens = async (model: CausalLM, prefill?: PrefillPool) => {
    const all: number[] = [];
    for await (const { token } of generate(model, prompt, { maxTokens: 6, temperature: 0, prefill })) all.push(token);
    return all;
  };
  try {
    expect(await tokens(packed, prefill)).toEqual(await tokens(whole));
  } finally {
    await prefill.close();
  }
  dispose(whole, packed);
});

test('it cannot be trained, and says so', () =>
  inScope(() => {
    const { whole, packed, parts } = twins(mmfree);
    const ids = idTensor(tokenIds(1, 12));
    const gradients = () => tf.variableGrads(() => packed.loss(ids, ids), [...packed.weights.values()]);
    expect(gradients).toThrow(
      'packedBitLinear: packed weights have no gradient; train the model they were packed from',
    );
    expect(() => packed.loadWeights(arrays(whole))).toThrow(WeightsError);
    const run = () => resolveRunConfig(tinyRun({ model: { ...parts.config } }));
    expect(run).toThrow(ConfigError);
    expect(run).toThrow(/model\.packed: the ternary weights of a packed model cannot be trained, got "2bit"/);
    dispose(whole, packed);
  }));

test('weights that do not fit are refused, and nothing is left', () =>
  inScope(() => {
    const whole = new CausalLM(mmfree);
    const { config, weights, packed } = packModel({ config: whole.config, weights: arrays(whole) });
    const make = (...[given, options]: ConstructorParameters<typeof CausalLM>) =>
      expect(() => new CausalLM(given, options));
    make(config, { weights }).toThrow(
      /a packed model \(packed: "2bit"\) is for inference and needs its packed weights/,
    );
    make(whole.config, { weights, packed }).toThrow(/need a config that says so/);
    const head = packed.get('lm_head.weight')!;
    const without = new Map([...packed].filter(([name]) => name !== 'lm_head.weight'));
    make(config, { weights, packed: without }).toThrow(/missing among the packed \(1\): lm_head\.weight/);
    const extra = new Map([...packed, ['model.embeddings.weight', head]]);
    make(config, { weights, packed: extra }).toThrow(
      /no ternary weight of this model \(1\): model\.embeddings\.weight/,
    );
    const misshapen = new Map([...packed, ['lm_head.weight', { ...head, shape: [36, 16] as [number, number] }]]);
    make(config, { weights, packed: misshapen }).toThrow(/lm_head\.weight must be \[37,16\], got \[36,16\]/);
    make(config, { weights: arrays(whole), packed }).toThrow(/not of this model \(\d+\): .*lm_head\.weight/);
    expect(() => packModel({ config, weights })).toThrow('the model is packed (2bit) already');
    expect(() => packModel({ config: whole.config, weights })).toThrow(/i_proj\.weight must be \[24,16\], got none/);
    whole.dispose();
  }));

test('a model without ternary weights cannot be packed', () => {
  const model = new CausalLM({ ...sizes, numLayers: 1 });
  expect(() => packModel({ config: model.config, weights: arrays(model) })).toThrow(
    'packModel: the model has no ternary weights',
  );
  model.dispose();
});

test('describe counts ternary weights and their bytes', () => {
  const published: ModelConfigInput = {
    ...{ vocabSize: 32_000, hiddenSize: 1024, numLayers: 24, mixers: ['mlgru'], linear: 'bit', tieEmbeddings: false },
    mlp: { type: 'bit_glu' },
  };
  const { ternary, config } = describeModel(published);
  expect(ternary?.parameters).toBe(341_049_344);
  const scales = 4 * (24 * 6 + 1);
  expect(ternary?.bytes['2bit']).toBe(341_049_344 / 4 + scales);
  expect(ternary!.bytes.float32 / ternary!.bytes.base3).toBeGreaterThan(19.8);
  expect(formatDescription(describeModel({ ...config, packed: 'base3' } as ModelConfig))).toMatch(
    /^ternary: 341,049,344 parameters; .*; packed here \(base3\)$/m,
  );
  expect(describeModel({ ...sizes, numLayers: 1 }).ternary).toBeUndefined();
});
