/** Descriptions: published parameter counts, and agreement with the model itself. */
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import {
  CausalLM,
  configFromFla,
  describe as describeModel,
  formatDescription,
  type ModelConfigInput,
} from '../../src/models/index.js';
import { smallConfigs } from './support.js';

test.each([
  ['340M', { hidden_size: 1024, tie_word_embeddings: true }, [4_219_648, 8_650_752, 341_707_776]],
  ['1.3B', {}, [16_827_904, 34_603_008, 1_365_514_240]],
  ['2.7B', { hidden_size: 2560, num_hidden_layers: 32, num_heads: 5 }, [26_277_632, 53_084_160, 2_703_583_744]],
  [
    '7B',
    {
      ...{ hidden_size: 4096, num_hidden_layers: 32, num_heads: 32, num_kv_heads: 8, expand_k: 1 },
      ...{ feature_map: 'relu', use_output_gate: false, intermediate_size: 14336 },
    },
    [42_026_112, 176_160_768, 7_244_390_400],
  ],
])('published GLA %s: parameters of a mixer, of a channel mixer and of all', (_, json, [mixer, mlp, total]) => {
  const before = tf.memory().numTensors;
  const description = describeModel(configFromFla(json));
  expect(tf.memory().numTensors, 'nothing is allocated').toBe(before);
  expect(description.layers[3].parameters).toEqual({ mixer, mlp, norms: 2 * description.config.hiddenSize });
  expect(description.parameters.total).toBe(total);
});

describe.each(Object.entries(smallConfigs))('%s', (_, config) => {
  test('agrees with the model', () => {
    const model = new CausalLM(config);
    const { weights, parameters, state, layers } = describeModel(config, [0, 1, 2, 4, 7, 100]);
    expect(weights.map(({ name, shape }) => [name, shape])).toEqual(
      [...model.weights].map(([name, x]) => [name, x.shape]),
    );
    const { total, ...parts } = parameters;
    expect(total).toBe(model.numParameters);
    expect(Object.values(parts).reduce((a, b) => a + b)).toBe(total);
    for (const { position, bytes } of state.at) expect(bytes).toBe(model.stateBytes(1, position));
    expect(state.constant).toBe(layers.reduce((sum, layer) => sum + layer.state.constant, 0));
    expect(state.perToken).toBe(layers.reduce((sum, layer) => sum + layer.state.perToken, 0));
    model.dispose();
  });
});

test('state bytes: constant for gla, per token for attention, up to its window', () => {
  const bytes = (mixer: NonNullable<ModelConfigInput['mixers']>[number]) =>
    describeModel({ hiddenSize: 16, numLayers: 3, mixers: [mixer] }, [10, 1000]).state;
  const recurrent = 3 * 4 * 2 * 4 * 8; // layers, bytes, heads, K, V
  expect(bytes({ type: 'gla', numHeads: 2 })).toEqual({
    ...{ constant: recurrent, perToken: 0 },
    at: [10, 1000].map((position) => ({ position, bytes: recurrent })),
  });
  const perToken = 3 * 4 * 2 * 16; // layers, bytes, k and v, width
  expect(bytes({ type: 'softmax_attention', numHeads: 2 })).toEqual({
    ...{ constant: 0, perToken },
    at: [10, 1000].map((position) => ({ position, bytes: position * perToken })),
  });
  const positions = 3 * 4;
  expect(bytes({ type: 'softmax_attention', numHeads: 2, window: 65 })).toEqual({
    ...{ constant: positions, perToken },
    at: [10, 64].map((cached, i) => ({ position: [10, 1000][i], bytes: positions + cached * perToken })),
  });
});

test('the table names every part, and each kind of layer once', () => {
  const text = formatDescription(
    describeModel({
      ...smallConfigs['gla and softmax attention'],
      numLayers: 5,
      mixers: ['gla', 'gla', 'softmax_attention'],
    }),
  );
  expect(text).toMatch(/^causal_lm: 13,\d{3} parameters; hidden size 16, 5 layers, vocabulary 37$/m);
  expect(text).toMatch(/^head +tied$/m);
  expect(text).toMatch(/^0-1 +gla /m);
  expect(text).toMatch(/^2 +softmax_attention +swiglu +1,024 +1,152 +2,208 +0 +128$/m);
  expect(text.match(/mlp\.up_proj\.weight/g)).toHaveLength(2);
  expect(text).toMatch(/^model\.layers\.2\.attn\.q_proj\.weight +\[16, 16\] +256$/m);
  expect(text).toMatch(/^ {2}at 1,024 tokens +[\d,]+ bytes$/m);
});
