/** Published hybrids of Qwen3: configs and tensors, there and back. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/config/problems.js';
import { type TensorToWrite, writeSafetensors } from '../../src/formats/safetensors.js';
import {
  CausalLM,
  configFromHybridQwen3,
  configToHybridQwen3,
  isHybridConfig,
  type ModelConfig,
  resolveModelConfig,
  weightsFromHybridQwen3,
  weightsToHybridQwen3,
} from '../../src/models/index.js';
import { createModel, openModel } from '../../src/train/openModel.js';
import { expectClose, values } from '../support/tensors.js';
import { arrays, idTensor, smallConfigs, toBfloat16, tokenIds } from './support.js';

/** As published, in small: five layers of the four types that we have. */
const small = {
  architectures: ['HybridQwen3ForCausalLM'],
  model_type: 'hybrid_qwen3',
  vocab_size: 37,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 5,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 6,
  hidden_act: 'silu',
  attention_bias: false,
  initializer_range: 0.3,
  rms_norm_eps: 1e-6,
  rope_parameters: { rope_theta: 1000000, rope_type: 'default' },
  max_position_embeddings: 40960,
  tie_word_embeddings: false,
  hybrid_override_pattern: '*-GKA-SWA-GKA-GDN',
  gka_config: { num_iter: 12, use_forgetting_gate_kk: false, norm_eps: 1e-5 },
  gdn_config: { allow_neg_eigval: true },
  swa_config: { window_size: 5 },
  dtype: 'bfloat16',
};

describe('config', () => {
  test('each layer is of the type that the pattern names; absent fields mean what they mean there', () => {
    const { mixers, ...rest } = configFromHybridQwen3(small);
    const heads = { numHeads: 4, headDim: 6 };
    const attention = { type: 'softmax_attention', ...heads, numKvHeads: 2, ropeBase: 1e6, qkNorm: true };
    const gka = { type: 'gka', ...heads, numKHeads: 2, numVHeads: 2, numIterations: 12, ridgeRatio: 0.02 };
    expect(mixers).toMatchObject([
      { ...attention, window: null },
      { ...gka, useForgettingGateKk: false, useForgettingGate: true, kvProjRank: null, normEps: 1e-5, convSize: 4 },
      { ...attention, window: 5 },
      { ...gka },
      { type: 'gated_delta_net', ...heads, numVHeads: 4, expandV: 1, allowNegEigval: true, normEps: 1e-5 },
    ]);
    expect(rest).toMatchObject({ vocabSize: 37, hiddenSize: 16, tieEmbeddings: false, normEps: 1e-6 });
    expect(rest.mlp).toEqual({ hiddenRatio: 4, intermediateSize: 24 });
  });

  test('an epsilon equal to the model’s is left to it; rope_theta may stand alone', () => {
    const { gka_config: _, rope_parameters: _r, ...json } = small;
    const { mixers } = configFromHybridQwen3({ ...json, rope_theta: 5e6, rope_scaling: null });
    expect(mixers[1]).not.toHaveProperty('normEps');
    expect(mixers[0]).toMatchObject({ ropeBase: 5e6 });
  });

  test('the 36 layers of the published 8B model: what they hold', () => {
    const published = {
      ...{ model_type: 'hybrid_qwen3', vocab_size: 151936, hidden_size: 4096, intermediate_size: 12288 },
      ...{ num_hidden_layers: 36, num_attention_heads: 32, num_key_value_heads: 8, head_dim: 128 },
      hybrid_override_pattern: Array(18).fill('*-GKA').join('-'),
    };
    const { mixers } = configFromHybridQwen3(published);
    expect(mixers.filter(({ type }) => type === 'gka')).toHaveLength(18);
    expect(mixers[35]).toMatchObject({ type: 'gka', numHeads: 32, numKHeads: 8, numVHeads: 8, headDim: 128 });
  });

  test('goes there and back', () => {
    const config = configFromHybridQwen3(small);
    const back = configToHybridQwen3(config);
    const { rope_parameters: _, max_position_embeddings: _m, dtype: _d, ...meaningful } = small;
    expect(back).toMatchObject({ ...meaningful, rope_theta: 1e6 });
    expect(configFromHybridQwen3(back)).toEqual(config);
    expect([back, config, { model_type: 'hybrid_llama', hybrid_override_pattern: '*' }].map(isHybridConfig)).toEqual([
      true,
      false,
      true,
    ]);
  });

  test('low-rank maps that nothing reads are left out', () => {
    const rank = { ...small, gka_config: { kv_proj_rank: 3, kv_learnable_residual: true } };
    expect(configFromHybridQwen3(rank).mixers[1]).toMatchObject({ kvProjRank: 3, kvLearnableResidual: true });
    const alone = configFromHybridQwen3({ ...rank, num_key_value_heads: null });
    expect(alone.mixers[1]).toMatchObject({ kvProjRank: null, kvLearnableResidual: false, numKHeads: 4 });
  });

  test('what is not supported is refused, all at once', () => {
    const read = () =>
      configFromHybridQwen3(
        {
          ...small,
          ...{ hidden_act: 'gelu', attention_bias: true, rope_parameters: { rope_type: 'yarn', rope_theta: 1e6 } },
          hybrid_override_pattern: '*-M2-BMF-GKA*-SWA-M2',
          ...{ gka_config: { solver_type: 'cg' }, swa_config: {} },
        },
        'some/config.json',
      );
    expect(read).toThrow(ConfigError);
    expect(read).toThrow(/^some\/config\.json: 8 problems/);
    expect(read).toThrow('rope_parameters.rope_type: supported: "default", got "yarn"');
    expect(read).toThrow('hybrid_override_pattern: must name 5 layers (num_hidden_layers), got 6');
    const types = 'hybrid_override_pattern: supported: *, GKA, GDN, SWA; layers';
    expect(read).toThrow(`${types} 1, 5 are "M2": Mamba-2, a layer we do not have`);
    expect(read).toThrow(`${types} 2 are "BMF": B'MOJO-F, a layer we do not have`);
    expect(read).toThrow(`${types} 3 are "GKA*": two layers in one, as in the middle of priming; unfuse`);
    expect(read).toThrow('swa_config.window_size: must be given, got nothing');
    const solver = { ...small, gka_config: { solver_type: 'cg' } };
    expect(() => configFromHybridQwen3(solver)).toThrow('gka_config.solver_type: supported: "chebyshev", got "cg"');
    expect(() => configFromHybridQwen3({ ...small, gdn_config: { kv_proj_rank: 4 } })).toThrow(
      'gdn_config.kv_proj_rank: supported: null, got 4',
    );
    expect(() => configFromHybridQwen3({ model_type: 'hybrid_llama' })).toThrow(
      /model_type: supported: "hybrid_qwen3", got "hybrid_llama"\n.*hybrid_override_pattern: must be given, got nothing/,
    );
  });

  test('what the published class cannot say is refused on writing', () => {
    const kinds = resolveModelConfig({ ...smallConfigs.gla, mixers: ['gla', 'gka'] });
    expect(() => configToHybridQwen3(kinds)).toThrow('mixers[0].type: has no name there, got "gla"');
    const config = resolveModelConfig({
      ...smallConfigs.gla,
      numLayers: 3,
      mixers: [{ type: 'softmax_attention' }, { type: 'gka', numHeads: 2 }, { type: 'gka', solver: 'exact' }],
    });
    const write = () => configToHybridQwen3(config);
    expect(write).toThrow('mixers[0].qkNorm: must be true, got false');
    expect(write).toThrow('mixers[1].numHeads: must be 4, got 2');
    expect(write).toThrow('mixers[2].solver: must be "chebyshev", got "exact"');
  });
});

describe('weights', () => {
  const config = configFromHybridQwen3(small);

  test('have the published names and shapes', () => {
    const model = withEqualHeads(config);
    const tensors = weightsToHybridQwen3(arrays(model), config);
    model.dispose();
    const shapes = Object.fromEntries([...tensors].map(([name, { shape }]) => [name, [...shape]]));
    expect(shapes).toMatchObject({
      'model.embed_tokens.weight': [37, 16],
      'model.norm.weight': [16],
      'lm_head.weight': [37, 16],
      'model.layers.0.input_layernorm.weight': [16],
      'model.layers.0.post_attention_layernorm.weight': [16],
      'model.layers.0.self_attn.q_proj.weight': [24, 16],
      'model.layers.0.self_attn.k_proj.weight': [12, 16],
      'model.layers.0.self_attn.q_norm.weight': [6],
      'model.layers.0.self_attn.k_norm.weight': [6],
      'model.layers.0.self_attn.o_proj.weight': [16, 24],
      'model.layers.0.mlp.gate_proj.weight': [24, 16],
      'model.layers.1.gka.q_proj.weight': [24, 16],
      'model.layers.1.gka.k_proj.weight': [12, 16],
      'model.layers.1.gka.v_conv1d.weight': [12, 1, 4],
      'model.layers.1.gka.a_proj.weight': [4, 16],
      'model.layers.1.gka.b_proj.bias': [4],
      'model.layers.1.gka.alpha_proj.weight': [4, 16],
      'model.layers.1.gka.alpha_proj.bias': [4],
      'model.layers.1.gka.A_log': [4],
      'model.layers.1.gka.dt_bias': [4],
      'model.layers.1.gka.g_proj.weight': [24, 16],
      'model.layers.1.gka.o_norm.weight': [6],
      'model.layers.2.swa.v_proj.weight': [12, 16],
      'model.layers.4.gdn.k_proj.weight': [12, 16],
      'model.layers.4.gdn.v_conv1d.weight': [12, 1, 4],
      'model.layers.4.gdn.gk_proj.weight': [4, 16],
      'model.layers.4.gdn.b_proj.weight': [4, 16],
    });
    const perLayer = [6, 16, 6, 16, 13].map((mixer) => 2 + 3 + mixer); // norms, channel mixer, mixer
    expect(tensors.size).toBe(3 + perLayer.reduce((a, b) => a + b));
  });

  test('a folder in bfloat16 opens as the model that wrote it, and gives the same logits', async () => {
    const model = withEqualHeads(config);
    for (const weight of model.weights.values()) tf.tidy(() => weight.assign(toBfloat16(weight)));
    const folder = mkdtempSync(join(tmpdir(), 'hybrid-'));
    const stored = [...weightsToHybridQwen3(arrays(model), config)].map(([name, tensor]): [string, TensorToWrite] => [
      name,
      { ...tensor, dtype: 'BF16' },
    ]);
    writeFileSync(join(folder, 'model.safetensors'), writeSafetensors(new Map(stored)));
    writeFileSync(join(folder, 'config.json'), JSON.stringify(small));
    const opened = await openModel(folder);
    rmSync(folder, { recursive: true });
    expect(opened.config).toEqual(config);
    const copy = createModel(opened);
    expect(arrays(copy)).toEqual(arrays(model));
    tf.tidy(() => {
      const ids = idTensor(tokenIds(1, 12));
      const [a, b] = [model, copy].map((m) => m.forward(ids).logits);
      expectClose('logits', b, a, 0);
    });
    for (const m of [model, copy]) m.dispose();
  });

  test('tensors that nothing reads are passed over; others are named', () => {
    const still = configFromHybridQwen3({
      ...small,
      gka_config: { use_forgetting_gate: false },
      tie_word_embeddings: true,
    });
    const model = withEqualHeads(still);
    const tensors = new Map(weightsToHybridQwen3(arrays(model), still));
    const zeros = (...shape: number[]) => ({ shape, data: new Float32Array(tf.util.sizeFromShape(shape)) });
    tensors.set('lm_head.weight', zeros(37, 16)).set('model.layers.1.gka.a_proj.weight', zeros(4, 16));
    tensors.set('model.layers.1.gka.A_log', zeros(4)).set('model.layers.1.gka.proj_k.linearA.weight', zeros(3, 12));
    model.loadWeights(weightsFromHybridQwen3(tensors, still));
    tensors.set('model.layers.0.gka.q_proj.weight', zeros(24, 16));
    tensors.set('model.layers.4.gdn.k_proj.weight', zeros(18, 16));
    const load = () => model.loadWeights(weightsFromHybridQwen3(tensors, still));
    expect(load).toThrow('not of this model (1): model.layers.0.gka.q_proj.weight');
    expect(load).toThrow('model.layers.4.attn.k_proj.weight must be [24,16], got [18,16]');
    model.dispose();
  });

  test('heads that shared keys and came to differ cannot be written', () => {
    const model = new CausalLM(config);
    expect(() => weightsToHybridQwen3(arrays(model), config)).toThrow(
      'weightsToHybridQwen3: heads of model.layers.4.attn.k_proj.weight that share keys and values there must be equal',
    );
    model.dispose();
  });
});

/** A random model whose Gated DeltaNet heads share keys and values two by two, as the published config has them. */
function withEqualHeads(config: ModelConfig): CausalLM {
  const model = new CausalLM(config, { seed: 5 });
  for (const [name, weight] of model.weights) {
    if (!/^model\.layers\.4\.attn\.[kv]_(proj|conv1d)\./.test(name)) continue;
    const numbers = Float32Array.from(values(weight));
    const head = numbers.length / 4;
    numbers.copyWithin(head, 0, head);
    numbers.copyWithin(3 * head, 2 * head, 3 * head);
    tf.tidy(() => weight.assign(tf.tensor(numbers, weight.shape)));
  }
  return model;
}
