/** Published Kimi Linear checkpoints: the released config and its exact figures, config and tensors both ways, shards. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { loadModelConfig } from '../../src/config/load.js';
import { ConfigError } from '../../src/config/problems.js';
import {
  CausalLM,
  configFromKimiLinear,
  configToKimiLinear,
  describe as describeModel,
  formatDescription,
  isKimiLinearConfig,
  resolveModelConfig,
  weightsFromKimiLinear,
  weightsToKimiLinear,
} from '../../src/models/index.js';
import { type TensorToWrite, writeSafetensors } from '../../src/train/index.js';
import { createModel, openModel } from '../../src/train/openModel.js';
import { values } from '../support/tensors.js';
import { arrays, idTensor, smallConfigs, toBfloat16, tokenIds } from './support.js';

const full = [4, 8, 12, 16, 20, 24, 27];

/** The released config.json. */
const released = {
  ...{ architectures: ['KimiLinearForCausalLM'], model_type: 'kimi_linear', dtype: 'bfloat16', vocab_size: 163840 },
  ...{ hidden_size: 2304, num_hidden_layers: 27, num_attention_heads: 32, num_key_value_heads: 32, head_dim: 72 },
  ...{ intermediate_size: 9216, hidden_act: 'silu', initializer_range: 0.02, rms_norm_eps: 1e-5, rope_theta: 10000 },
  ...{ rope_scaling: null, model_max_length: 1048576, bos_token_id: 163584, eos_token_id: 163586, use_cache: true },
  ...{ tie_word_embeddings: false, q_lora_rank: null, kv_lora_rank: 512, qk_nope_head_dim: 128, qk_rope_head_dim: 64 },
  ...{ v_head_dim: 128, mla_use_nope: true, num_experts: 256, num_experts_per_token: 8, num_shared_experts: 1 },
  ...{ moe_intermediate_size: 1024, moe_renormalize: true, moe_router_activation_func: 'sigmoid' },
  ...{ routed_scaling_factor: 2.446, first_k_dense_replace: 1, moe_layer_freq: 1, use_grouped_topk: true },
  ...{ num_expert_group: 1, topk_group: 1, num_nextn_predict_layers: 0 },
  linear_attn_config: {
    full_attn_layers: full,
    kda_layers: Array.from({ length: 27 }, (_, i) => i + 1).filter((layer) => !full.includes(layer)),
    ...{ head_dim: 128, num_heads: 32, short_conv_kernel_size: 4 },
  },
};

/** Every field, small sizes, a schedule that no rule would give. */
const small = {
  ...released,
  ...{ vocab_size: 37, hidden_size: 16, num_hidden_layers: 3, num_attention_heads: 2, num_key_value_heads: 2 },
  ...{ intermediate_size: 24, kv_lora_rank: 8, qk_nope_head_dim: 6, qk_rope_head_dim: 4, v_head_dim: 5 },
  ...{ num_experts: 4, num_experts_per_token: 2, num_shared_experts: 2, moe_intermediate_size: 7 },
  linear_attn_config: {
    ...{ full_attn_layers: [1, 3], kda_layers: [2], head_dim: 8, num_heads: 2, short_conv_kernel_size: 3 },
  },
};

describe('the released 48B model', () => {
  const config = configFromKimiLinear(released);

  test('is the one in configs/models', () => {
    expect(loadModelConfig('configs/models/kimi-linear-48b-a3b.json')).toEqual(config);
  });

  test('has the published parameters, active parameters, caches and states, and nothing is allocated', () => {
    const before = tf.memory().numTensors;
    const { parameters, active, layers, state } = describeModel(config, [2 ** 20]);
    expect(tf.memory().numTensors).toBe(before);
    expect(parameters.total).toBe(49_122_681_728);
    expect(active).toEqual({ layers: 2_729_485_184, total: 3_106_972_544 });
    expect([layers[0], layers[3]].map((layer) => layer.parameters.mixer)).toEqual([39_514_272, 29_114_880]);
    expect(layers[1].parameters.mlp).toBe(257 * 7_077_888 + 256 * 2304 + 256);
    const convolutions = 3 * 4096 * 4 * 4; // of 4 inputs, as float32
    expect(layers[0].state).toEqual({ constant: 2_097_152 + convolutions, perToken: 0 });
    expect(layers[3].state).toEqual({ constant: 0, perToken: 4 * 576 });
    expect(state).toEqual({
      ...{ constant: 20 * (2_097_152 + convolutions), perToken: 2 * 8_064 }, // twice the figures in bfloat16
      at: [{ position: 2 ** 20, bytes: 20 * (2_097_152 + convolutions) + 2 ** 20 * 2 * 8_064 }],
      ifAll: { latent: 2 * 31_104, heads: 4 * 27 * 10_240 },
    });
  });

  test('stands in the 20,493 published tensors, which hold all its parameters', () => {
    const nothing = new Float32Array();
    const { weights } = describeModel(config);
    const named = new Map(weights.map(({ name, shape }) => [name, { shape, data: nothing }]));
    const tensors = [...weightsToKimiLinear(named, config).values()];
    expect(tensors.length).toBe(20_493);
    expect(tensors.reduce((sum, { shape }) => sum + tf.util.sizeFromShape([...shape]), 0)).toBe(49_122_681_728);
  });

  test('its table says so', () => {
    const text = formatDescription(describeModel(config));
    expect(text).toContain('causal_lm: 49,122,681,728 parameters; hidden size 2,304, 27 layers, vocabulary 163,840');
    expect(text).toContain('active in a token: 3,106,972,544 parameters, 2,729,485,184 without the head');
    expect(text).toMatch(/^26 +mla +moe +29,114,880 +1,819,607,296 +93,410,560 +0 +2,304$/m);
    expect(text).toContain('if all layers were mla: 62,208 bytes per token, of which this is 25.9 %');
  });
});

test('the tiny model fits into 2 MB of bfloat16', () => {
  const { parameters, layers } = describeModel(loadModelConfig('configs/models/kimi-linear-tiny.json'));
  expect(2 * parameters.total).toBeLessThan(1_990_000);
  expect(parameters.total).toBeGreaterThan(950_000);
  expect(layers.map(({ mixer, mlp }) => `${mixer} ${mlp}`)).toEqual(['kda swiglu', 'kda moe', 'kda moe', 'mla moe']);
});

describe('config', () => {
  test('fields are read, the layers from their lists', () => {
    const config = configFromKimiLinear(small);
    expect(config.mixers.map(({ type }) => type)).toEqual(['mla', 'kda', 'mla']);
    expect(config.mixers[0]).toMatchObject({
      numHeads: 2,
      kvLoraRank: 8,
      vHeadDim: 5,
      qLoraRank: null,
      ropeBase: null,
    });
    expect(config.mixers[1]).toMatchObject({ numHeads: 2, headDim: 8, convSize: 3, gateBias: false, lowerBound: null });
    expect(config).toMatchObject({ normEps: 1e-5, tieEmbeddings: false, hiddenSize: 16, vocabSize: 37 });
    expect(config.mlp).toMatchObject({
      intermediateSize: 24,
      moe: { numExperts: 4, numSharedExperts: 2, routedScalingFactor: 2.446, firstKDenseReplace: 1 },
    });
  });

  test('goes there and back', () => {
    const config = configFromKimiLinear(small);
    const { dtype: _, model_max_length: _l, head_dim: _h, ...rest } = small;
    const { bos_token_id: _b, eos_token_id: _e, use_cache: _u, rope_scaling: _r, ...meaningful } = rest;
    expect(configToKimiLinear(config)).toMatchObject(meaningful);
    expect(configFromKimiLinear(configToKimiLinear(config))).toEqual(config);
    expect([configToKimiLinear(config), config].map(isKimiLinearConfig)).toEqual([true, false]);
  });

  test('without experts, with rotary positions and squeezed queries', () => {
    const dense = { ...small, num_experts: null, mla_use_nope: false, rope_theta: 500, q_lora_rank: 9 };
    const config = configFromKimiLinear(dense);
    expect(config.mlp).toEqual({ hiddenRatio: 4, intermediateSize: 24 });
    expect(config.mixers[0]).toMatchObject({ ropeBase: 500, qLoraRank: 9 });
    expect(configFromKimiLinear(configToKimiLinear(config))).toEqual(config);
  });

  test('what is not supported is refused, all at once', () => {
    const wrong = { hidden_act: 'gelu', rope_scaling: { factor: 2 }, moe_router_activation_func: 'softmax' };
    const lists = { ...small.linear_attn_config, full_attn_layers: [1, 4], kda_layers: [1] };
    const read = () =>
      configFromKimiLinear({ ...small, ...wrong, v_head_dim: null, linear_attn_config: lists }, 'some/config.json');
    expect(read).toThrow(ConfigError);
    expect(read).toThrow(/^some\/config\.json: 6 problems/);
    for (const field of Object.keys(wrong)) expect(read).toThrow(new RegExp(`${field}: supported: .*, got `));
    expect(read).toThrow('v_head_dim: must be given, got nothing');
    expect(read).toThrow('linear_attn_config: each layer must be in one of the two lists, got [1,2,3]');
    expect(read).toThrow('linear_attn_config: its lists count layers from 1 to 3, got [4]');
    expect(() => configFromKimiLinear({ model_type: 'kimi_linear' })).toThrow(/linear_attn_config: must be given/);
  });

  test('what the published class cannot say is refused on writing', () => {
    const kda = { type: 'kda', numHeads: 2 } as const;
    const config = resolveModelConfig({ ...smallConfigs.gla, mixers: ['gla', kda] });
    const write = () => configToKimiLinear(config);
    expect(write).toThrow('mixers[0].type: must be kda or mla, got "gla"');
    expect(write).toThrow('mixers[1].gateBias: must be false, got true');
    expect(write).toThrow('mixers: must hold layers of kda and of mla');
  });
});

describe('weights', () => {
  const config = configFromKimiLinear(small);
  const lively = { ...config, initializerRange: 0.3 };

  test('have the published names and shapes', () => {
    const model = new CausalLM(config);
    const tensors = weightsToKimiLinear(arrays(model), config);
    model.dispose();
    const shapes = Object.fromEntries([...tensors].map(([name, { shape }]) => [name, [...shape]]));
    expect(shapes).toMatchObject({
      'model.embed_tokens.weight': [37, 16],
      'model.norm.weight': [16],
      'lm_head.weight': [37, 16],
      'model.layers.0.input_layernorm.weight': [16],
      'model.layers.0.post_attention_layernorm.weight': [16],
      'model.layers.0.self_attn.q_proj.weight': [20, 16],
      'model.layers.0.self_attn.kv_a_proj_with_mqa.weight': [12, 16],
      'model.layers.0.self_attn.kv_a_layernorm.weight': [8],
      'model.layers.0.self_attn.kv_b_proj.weight': [22, 8],
      'model.layers.0.self_attn.o_proj.weight': [16, 10],
      'model.layers.0.mlp.gate_proj.weight': [24, 16],
      'model.layers.1.self_attn.q_conv1d.weight': [16, 1, 3],
      'model.layers.1.self_attn.A_log': [1, 1, 2, 1],
      'model.layers.1.self_attn.dt_bias': [16],
      'model.layers.1.self_attn.f_a_proj.weight': [8, 16],
      'model.layers.1.self_attn.f_b_proj.weight': [16, 8],
      'model.layers.1.self_attn.g_a_proj.weight': [8, 16],
      'model.layers.1.self_attn.g_b_proj.weight': [16, 8],
      'model.layers.1.self_attn.b_proj.weight': [2, 16],
      'model.layers.1.self_attn.o_norm.weight': [8],
      'model.layers.1.block_sparse_moe.gate.weight': [4, 16],
      'model.layers.1.block_sparse_moe.gate.e_score_correction_bias': [4],
      'model.layers.1.block_sparse_moe.experts.3.w1.weight': [7, 16],
      'model.layers.1.block_sparse_moe.experts.3.w2.weight': [16, 7],
      'model.layers.1.block_sparse_moe.experts.3.w3.weight': [7, 16],
      'model.layers.1.block_sparse_moe.shared_experts.up_proj.weight': [14, 16],
    });
    const perLayer = [2 + 5 + 3, 2 + 15 + 2 + 12 + 3, 2 + 5 + 2 + 12 + 3]; // norms, mixer, channel mixer
    expect(tensors.size).toBe(3 + perLayer.reduce((a, b) => a + b));
  });

  test('a folder of shards, in bfloat16 but for A_log and dt_bias, opens as the model that wrote it', async () => {
    const model = new CausalLM(lively, { seed: 5 });
    for (const weight of model.weights.values()) tf.tidy(() => weight.assign(toBfloat16(weight)));
    const folder = mkdtempSync(join(tmpdir(), 'kimi-'));
    const tensors = [...weightsToKimiLinear(arrays(model), config)];
    const weightMap: Record<string, string> = {};
    for (const [i, shard] of [tensors.filter((_, i) => i % 3 > 0), tensors.filter((_, i) => i % 3 === 0)].entries()) {
      const file = `model-0000${i + 1}-of-00002.safetensors`;
      const stored = shard.map(([name, tensor]): [string, TensorToWrite] => [
        name,
        { ...tensor, dtype: /A_log|dt_bias/.test(name) ? 'F32' : 'BF16' },
      ]);
      writeFileSync(join(folder, file), writeSafetensors(new Map(stored)));
      for (const [name] of shard) weightMap[name] = file;
    }
    writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap }));
    writeFileSync(join(folder, 'config.json'), JSON.stringify(small));
    const opened = await openModel(folder);
    rmSync(folder, { recursive: true });
    expect(opened.config).toEqual(config);
    const copy = createModel(opened);
    expect(arrays(copy)).toEqual(arrays(model));
    tf.tidy(() => {
      const ids = idTensor(tokenIds(1, 12));
      const [a, b] = [model, copy].map((m) => values(m.forward(ids).logits));
      expect(Array.from(a)).toEqual(Array.from(b));
    });
    for (const m of [model, copy]) m.dispose();
  });

  test('the experts are taken out of the tensors, the rest is shared', () => {
    const model = new CausalLM(config, { seed: 6 });
    const own = arrays(model);
    const tensors = new Map(weightsToKimiLinear(own, config));
    const norm = tensors.get('model.norm.weight');
    const back = weightsFromKimiLinear(tensors, config);
    expect(new Map([...back].sort())).toEqual(new Map([...own].sort()));
    expect([...tensors.keys()].filter((name) => name.includes('.experts.'))).toEqual([]);
    expect(back.get('model.norm.weight')?.data).toBe(norm?.data);
    model.dispose();
  });

  test('what is missing, unknown or of another shape is named', () => {
    const model = new CausalLM(config);
    const tensors = new Map(weightsToKimiLinear(arrays(model), config));
    tensors.delete('model.layers.1.block_sparse_moe.experts.2.w1.weight');
    tensors.set('model.layers.1.self_attn.A_log', { shape: [3], data: new Float32Array(3) });
    tensors.set('model.layers.9.extra', { shape: [1], data: new Float32Array(1) });
    const load = () => model.loadWeights(weightsFromKimiLinear(tensors, config));
    expect(load).toThrow('missing (1): model.layers.1.mlp.experts.w1');
    expect(load).toThrow(/not of this model \(4\): .*experts\.0\.w1\.weight.*model\.layers\.9\.extra/);
    expect(load).toThrow('model.layers.1.attn.A_log must be [2], got [3]');
    model.dispose();
  });
});
