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
    const read = () => configFromFla({ ...wrong, model_type: 'gsa', feature_map: 'elu' }, 'some/config.json');
    expect(read).toThrow(ConfigError);
    expect(read).toThrow(/^some\/config\.json: 7 problems/);
    for (const field of [...Object.keys(wrong), 'model_type', 'feature_map'])
      expect(read).toThrow(new RegExp(`${field}: supported: .*, got `));
    expect(() => configFromFla({ num_heads: 'four' })).toThrow(/numHeads/);
  });

  test('what the published class cannot say is refused on writing', () => {
    const write = (name: string) => () => configToFla(resolveModelConfig(smallConfigs[name]));
    expect(write('gla and softmax attention')).toThrow(/mixers\[0\]\.gateFn: must be "silu", got "sigmoid"/);
    expect(write('gla and softmax attention')).toThrow(/mixers\[1\]\.type: must be gla, got "softmax_attention"/);
    expect(write('gla with convolutions, kv heads and a head of its own')).toThrow(/convBias: must be false, got true/);
  });
});

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
