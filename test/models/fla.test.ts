/** Published GLA checkpoints: config both ways, tensor variants, shards, and the golden language model through the adapter. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/config/problems.js';
import { useBackend } from '../../src/index.js';
import {
  CausalLM,
  configFromFla,
  configToFla,
  isFlaConfig,
  type NamedArrays,
  resolveModelConfig,
  weightsFromFla,
} from '../../src/models/index.js';
import { loadModelDir, type TensorToWrite, writeSafetensors } from '../../src/train/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { values } from '../support/tensors.js';
import { smallConfigs } from './support.js';

const published = {
  ...{ architectures: ['GLAForCausalLM'], model_type: 'gla', attn: null, attn_mode: 'chunk', fuse_norm: true },
  ...{ hidden_size: 32, num_hidden_layers: 2, num_heads: 4, num_kv_heads: 2, vocab_size: 50, intermediate_size: 40 },
  ...{ expand_k: 1, use_short_conv: true, conv_size: 3, clamp_min: -2, hidden_act: 'swish', norm_eps: 1e-5 },
};

describe('config', () => {
  test('an empty one has the published defaults', () => {
    expect(configFromFla({})).toMatchObject({
      ...{ hiddenSize: 2048, numLayers: 24, vocabSize: 32000, normEps: 1e-6, tieEmbeddings: false },
      ...{ initializerRange: 0.02, mlp: { hiddenRatio: 4, intermediateSize: 5632 } },
    });
    expect(configFromFla({}).mixers[23]).toMatchObject({
      ...{ type: 'gla', numHeads: 4, numKvHeads: 4, expandK: 0.5, expandV: 1, featureMap: null, useShortConv: false },
      ...{
        convSize: 4,
        useOutputGate: true,
        gateFn: 'silu',
        gateLogitNormalizer: 16,
        gateLowRankDim: 16,
        clampMin: null,
      },
    });
  });

  test('fields are read; null means absent; fields without numerical meaning and unknown ones are ignored', () => {
    const config = configFromFla({ ...published, hidden_ratio: null, some_new_flag: 3 });
    expect(config).toMatchObject({
      hiddenSize: 32,
      numLayers: 2,
      vocabSize: 50,
      normEps: 1e-5,
      mlp: { intermediateSize: 40 },
    });
    expect(config.mixers[1]).toMatchObject({
      numKvHeads: 2,
      expandK: 1,
      useShortConv: true,
      convSize: 3,
      clampMin: -2,
    });
  });

  test('goes there and back', () => {
    const config = configFromFla(published);
    const { attn_mode: _, fuse_norm: _f, ...meaningful } = published;
    expect(configToFla(config)).toMatchObject(meaningful);
    expect(configFromFla(configToFla(config))).toEqual(config);
    expect(isFlaConfig(configToFla(config))).toBe(true);
    expect(isFlaConfig(config)).toBe(false);
  });

  test('what is not supported is refused, all at once', () => {
    const wrong = { use_gk: false, use_gv: true, elementwise_affine: false, hidden_act: 'gelu', attn: { layers: [1] } };
    const read = () => configFromFla({ ...wrong, feature_map: 'elu' }, 'some/config.json');
    expect(read).toThrow(ConfigError);
    expect(read).toThrow(/^some\/config\.json: 6 problems/);
    for (const field of [...Object.keys(wrong), 'feature_map'])
      expect(read).toThrow(new RegExp(`${field}: supported: .*, got `));
    expect(() => configFromFla({ model_type: 'gsa' })).toThrow(
      /model_type: supported: "gla" or "delta_net" or "gated_deltanet" or "kda", got "gsa"/,
    );
    expect(() => configFromFla({ num_heads: 'four' })).toThrow(/numHeads/);
  });

  test('what the published class cannot say is refused on writing', () => {
    const write = (name: string) => () => configToFla(resolveModelConfig(smallConfigs[name]));
    expect(write('gla and softmax attention')).toThrow(/mixers\[0\]\.gateFn: must be "silu", got "sigmoid"/);
    expect(write('gla and softmax attention')).toThrow(/mixers\[1\]\.type: must be gla, got "softmax_attention"/);
    expect(write('gla with convolutions, kv heads and a head of its own')).toThrow(/convBias: must be false, got true/);
    expect(write('latent attention')).toThrow(/type: must be gla, delta_net, gated_delta_net, kda, got "mla"/);
    expect(() => configToFla(resolveModelConfig({ ...smallConfigs.gla, linear: 'bit' }))).toThrow(
      /linear: the published class has dense weights: must be "dense", got "bit"/,
    );
    expect(write('experts after a dense layer')).toThrow(/mlp\.moe: the published classes have no experts/);
  });
});

const size = { hidden_size: 24, num_hidden_layers: 2, vocab_size: 40, intermediate_size: 32 };
const head = { num_heads: 2, num_v_heads: 4, head_dim: 8 };

describe.each([
  {
    fields: {
      model_type: 'delta_net',
      num_heads: 3,
      expand_k: 0.5,
      use_gate: true,
      allow_neg_eigval: true,
      conv_size: 3,
    },
    architecture: 'DeltaNetForCausalLM',
    mixer: { type: 'delta_net', numHeads: 3, expandK: 0.5, useOutputGate: true, allowNegEigval: true, convSize: 3 },
    absent: { type: 'delta_net', numHeads: 16, expandK: 1, expandV: 1, useOutputGate: false, useShortConv: true },
    layers: 24,
    wrong: { use_beta: false, use_output_norm: false, qk_norm: 'sum', qk_activation: 'elu' },
    sayNot: { convBias: true },
  },
  {
    fields: { model_type: 'gated_deltanet', ...head, expand_v: 1.5, use_gate: false, use_short_conv: false },
    architecture: 'GatedDeltaNetForCausalLM',
    mixer: {
      type: 'gated_delta_net',
      numVHeads: 4,
      headDim: 8,
      expandV: 1.5,
      useOutputGate: false,
      useShortConv: false,
    },
    absent: { type: 'gated_delta_net', numHeads: 6, numVHeads: 6, headDim: 256, expandV: 2, useOutputGate: true },
    layers: 21,
    wrong: { attn: { layers: [0] } },
    sayNot: { convBias: true },
  },
  {
    fields: { model_type: 'kda', ...head, safe_gate: true, lower_bound: -5, allow_neg_eigval: true },
    architecture: 'KDAForCausalLM',
    mixer: { type: 'kda', numHeads: 2, numVHeads: 4, headDim: 8, lowerBound: -5, safeGate: true, gateBias: true },
    absent: { type: 'kda', numHeads: 16, numVHeads: 16, headDim: 128, expandV: 1, lowerBound: null, safeGate: false },
    layers: 24,
    wrong: { hidden_act: 'gelu' },
    sayNot: { gateBias: false },
  },
])('$fields.model_type', ({ fields, architecture, mixer, absent, layers, wrong, sayNot }) => {
  const published = { ...size, ...fields };

  test('config: fields, published defaults, there and back', () => {
    const config = configFromFla(published);
    expect(config.mixers).toHaveLength(2);
    expect(config.mixers[1]).toMatchObject(mixer);
    const plain = configFromFla({ model_type: fields.model_type });
    expect(plain.mixers).toHaveLength(layers);
    expect(plain.mixers[0]).toMatchObject(absent);
    expect(configToFla(config)).toMatchObject({ ...published, architectures: [architecture] });
    expect(configFromFla(configToFla(config))).toEqual(config);
    expect(configFromFla(configToFla(plain))).toEqual(plain);
    expect(isFlaConfig(published)).toBe(true);
  });

  test('what is not supported, or cannot be said, is refused', () => {
    for (const [name, value] of Object.entries(wrong))
      expect(() => configFromFla({ ...published, [name]: value })).toThrow(new RegExp(`${name}: supported: .*, got `));
    const config = configFromFla(published);
    const mixers = config.mixers.map((m) => ({ ...m, ...sayNot })) as typeof config.mixers;
    const [option] = Object.keys(sayNot);
    expect(() => configToFla({ ...config, mixers })).toThrow(new RegExp(`mixers\\[0\\]\\.${option}: must be `));
  });

  test('weights go through unchanged, under the published names', () => {
    const config = configFromFla(published);
    const model = new CausalLM(config, { seed: 8 });
    const own = arrays(model);
    const copy = new CausalLM(configFromFla(configToFla(config)), { weights: weightsFromFla(own, config) });
    expect(arrays(copy)).toEqual(own);
    const names = [...own.keys()].filter((name) => name.startsWith('model.layers.1.attn.'));
    expect(names.map((name) => name.slice(20)).sort()).toEqual(
      weightNames[fields.model_type as keyof typeof weightNames],
    );
    for (const m of [model, copy]) m.dispose();
  });
});

const ends = ['o_norm.weight', 'o_proj.weight'];
const convolutions = ['k_conv1d.weight', 'q_conv1d.weight', 'v_conv1d.weight'];
const projections = ['b_proj.weight', 'k_proj.weight', 'q_proj.weight', 'v_proj.weight'];
const factors = ['f_proj.0.weight', 'f_proj.1.weight', 'g_proj.0.weight', 'g_proj.1.bias', 'g_proj.1.weight'];

/** Below `attn.`, as the published layers name them. */
const weightNames = {
  delta_net: ['g_proj.weight', ...ends, ...convolutions, ...projections].sort(),
  gated_deltanet: ['A_log', 'dt_bias', 'a_proj.weight', ...ends, ...projections].sort(),
  kda: ['A_log', 'dt_bias', ...factors, ...ends, ...convolutions, ...projections].sort(),
};

describe('weights', () => {
  const config = configFromFla({ ...published, tie_word_embeddings: true });

  test('a fused gate_proj is split, the copy of a tied head dropped', () => {
    const model = new CausalLM(config, { seed: 5 });
    const own = arrays(model);
    const fused = new Map(own);
    for (const layer of [0, 1]) {
      const [gate, up] = ['gate', 'up'].map((part) => `model.layers.${layer}.mlp.${part}_proj.weight`);
      const data = Float32Array.from([...own.get(gate)!.data, ...own.get(up)!.data]);
      fused.set(gate, { shape: [80, 32], data });
      fused.delete(up);
    }
    fused.set('lm_head.weight', own.get('model.embeddings.weight')!);
    expect(new Map([...weightsFromFla(fused, config)].sort())).toEqual(new Map([...own].sort()));
    expect(weightsFromFla(own, config)).toEqual(own);
    model.dispose();
  });

  test('a sharded folder loads', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'fla-'));
    const model = new CausalLM(config, { seed: 6 });
    const own = [...arrays(model)];
    const shards = [own.slice(0, 9), own.slice(9)];
    const weightMap: Record<string, string> = {};
    shards.forEach((shard, i) => {
      const file = `model-0000${i + 1}-of-00002.safetensors`;
      const tensors = shard.map(([name, weight]): [string, TensorToWrite] => [name, { dtype: 'F32', ...weight }]);
      writeFileSync(join(folder, file), writeSafetensors(new Map(tensors)));
      for (const [name] of shard) weightMap[name] = file;
    });
    writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap }));
    writeFileSync(join(folder, 'config.json'), JSON.stringify(configToFla(config)));
    const loaded = await loadModelDir(folder, { checksums: 'optional' });
    rmSync(folder, { recursive: true });
    const read = configFromFla(loaded.config);
    const copy = new CausalLM(read, { weights: weightsFromFla(loaded.weights, read) });
    expect(arrays(copy)).toEqual(arrays(model));
    for (const m of [model, copy]) m.dispose();
  });
});

describe.each(['wasm', 'cpu'] as const)('golden language model on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  test.each(goldenEntries('gla_lm').map((entry) => [entry.file, entry] as const))(
    '%s: logits, loss, gradients',
    (file, entry) => {
      tf.tidy(() => {
        const golden = readGolden(file);
        const config = configFromFla(goldenConfig(entry));
        const names = Object.keys(entry.inputs).filter((name) => name !== 'input_ids');
        const tensors = new Map(
          names.map((name) => [name, { shape: golden[name].shape, data: golden[name].dataSync() as Float32Array }]),
        );
        const model = new CausalLM(config, { weights: weightsFromFla(tensors, config) });
        const ids = tf.cast(golden.input_ids, 'int32') as tf.Tensor2D;
        const [B, T] = ids.shape;
        const [inputs, targets] = [tf.slice(ids, [0, 0], [B, T - 1]), tf.slice(ids, [0, 1], [B, T - 1])];
        const { value, grads } = tf.variableGrads(() => model.loss(inputs, targets), [...model.weights.values()]);
        const got: Record<string, tf.Tensor> = { logits: model.forward(ids).logits, loss: tf.reshape(value, [1]) };
        for (const [name, weight] of model.weights) got[`grad.${name}`] = grads[weight.name];
        for (const name of Object.keys(entry.outputs)) {
          const [mine, want] = [values(got[name]), values(golden[name])];
          expect(got[name].shape, name).toEqual(golden[name].shape);
          const worst = Array.from(mine).reduce(
            (w, x, i) => Math.max(w, Number.isNaN(x) ? Infinity : Math.abs(x - want[i])),
            0,
          );
          expect(worst, name).toBeLessThanOrEqual(entry.tolerances[name].max_abs);
        }
        model.dispose();
      });
    },
  );
});

/** The published config that the manifest's entry stands for. */
function goldenConfig({ config }: GoldenEntry): Record<string, number> {
  const fields = [
    'expand_k',
    'expand_v',
    'norm_eps',
    'hidden_size',
    'num_hidden_layers',
    'num_heads',
    'vocab_size',
    'intermediate_size',
  ];
  return Object.fromEntries(fields.map((field) => [field, Number(config[field])]));
}

function arrays(model: CausalLM): NamedArrays {
  return new Map(
    [...model.weights].map(([name, x]) => [name, { shape: [...x.shape], data: Float32Array.from(x.dataSync()) }]),
  );
}
