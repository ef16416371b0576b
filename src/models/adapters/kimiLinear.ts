/**
 * Published Kimi Linear checkpoints (`moonshotai/Kimi-Linear-48B-A3B-*` on the Hugging Face hub; https://arxiv.org/abs/2510.26692):
 * layers of Kimi Delta Attention and of latent attention without positions, a dense first layer, a mixture of experts in the others.
 * The place for their names.
 */
import { ConfigError, type Problem, quote } from '../../config/problems.js';
import { type ModelConfig, resolveModelConfig } from '../config.js';
import { namedSpecs, TABLE } from '../decoder.js';
import type { MixerConfig } from '../mixers/index.js';
import type { KdaConfig } from '../mixers/kda.js';
import type { MlaConfig } from '../mixers/mla.js';
import { hasExperts } from '../mlps/moe.js';
import type { NamedArrays } from '../trainableModel.js';
import { ternaryProblems } from './ternary.js';

type Json = Record<string, unknown>;
type Arrays = Map<string, { shape: readonly number[]; data: Float32Array }>;

/** What a field that is absent or null means: the defaults of the published model class. */
const defaults = {
  model_type: 'kimi_linear',
  vocab_size: 163840,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  hidden_act: 'silu',
  initializer_range: 0.02,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
  rope_theta: 10000,
  q_lora_rank: null,
  mla_use_nope: false,
  num_experts: null,
  num_shared_experts: 0,
  moe_renormalize: true,
  moe_router_activation_func: 'sigmoid',
  routed_scaling_factor: 1,
  first_k_dense_replace: 0,
  moe_layer_freq: 1,
  use_grouped_topk: true,
  num_expert_group: 1,
  topk_group: 1,
  num_nextn_predict_layers: 0,
} as const;

/** Fields without a default: a model without them is none of this family. */
const needed = ['kv_lora_rank', 'qk_nope_head_dim', 'qk_rope_head_dim', 'v_head_dim', 'linear_attn_config'];
const neededOfExperts = ['num_experts_per_token', 'moe_intermediate_size'];

/** Fields whose other values change the model in ways we do not have. */
const supported: Record<string, readonly unknown[]> = {
  model_type: ['kimi_linear'],
  hidden_act: ['silu'],
  rope_scaling: [undefined],
  moe_router_activation_func: ['sigmoid'],
  num_nextn_predict_layers: [0],
};

/** The layers of a published config, which counts them from 1. */
interface Schedule {
  full_attn_layers: number[];
  kda_layers: number[];
  num_heads: number;
  head_dim: number;
  short_conv_kernel_size: number;
}

/** True when a `config.json` is of a published Kimi Linear model. */
export const isKimiLinearConfig = (json: unknown): boolean => (json as Json | null)?.model_type === 'kimi_linear';

/**
 * Our config for a published `config.json`. Missing fields have the published defaults; unknown ones, and those without numerical
 * meaning, are ignored. Which layer is of which kind is read from the two lists, never computed.
 * @param source where it came from, for the error
 * @throws ConfigError listing every field with a value that we do not support
 */
export function configFromKimiLinear(json: unknown, source = 'config.json'): ModelConfig {
  const given = Object.entries((json ?? {}) as Json).filter(([, value]) => value !== null);
  const c: Json = { ...defaults, ...Object.fromEntries(given) };
  const problems = readProblems(c);
  if (problems.length) throw new ConfigError(source, problems);
  const schedule = c.linear_attn_config as Schedule;
  const kda = {
    type: 'kda',
    numHeads: schedule.num_heads,
    headDim: schedule.head_dim,
    convSize: schedule.short_conv_kernel_size,
    gateBias: false,
  };
  const mla = {
    type: 'mla',
    numHeads: c.num_attention_heads,
    kvLoraRank: c.kv_lora_rank,
    qkNopeHeadDim: c.qk_nope_head_dim,
    qkRopeHeadDim: c.qk_rope_head_dim,
    vHeadDim: c.v_head_dim,
    qLoraRank: c.q_lora_rank,
    ropeBase: c.mla_use_nope ? null : c.rope_theta,
  };
  const layers = Array.from({ length: c.num_hidden_layers as number }, (_, i) => i + 1);
  const model = {
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    numLayers: c.num_hidden_layers,
    mixers: layers.map((layer) => (schedule.full_attn_layers.includes(layer) ? mla : kda)),
    mlp: { intermediateSize: c.intermediate_size, ...(c.num_experts ? { moe: expertsFrom(c) } : {}) },
    normEps: c.rms_norm_eps,
    tieEmbeddings: c.tie_word_embeddings,
    initializerRange: c.initializer_range,
  };
  return resolveModelConfig(model, source);
}

function expertsFrom(c: Json): Json {
  return {
    numExperts: c.num_experts,
    numExpertsPerToken: c.num_experts_per_token,
    numSharedExperts: c.num_shared_experts,
    moeIntermediateSize: c.moe_intermediate_size,
    renormalize: c.moe_renormalize,
    routedScalingFactor: c.routed_scaling_factor,
    numExpertGroup: c.use_grouped_topk ? c.num_expert_group : 1,
    topkGroup: c.use_grouped_topk ? c.topk_group : 1,
    firstKDenseReplace: c.first_k_dense_replace,
    moeLayerFreq: c.moe_layer_freq,
  };
}

function readProblems(c: Json): Problem[] {
  const missing = [...needed, ...(c.num_experts ? neededOfExperts : [])].filter((path) => c[path] === undefined);
  const wrong = Object.entries(supported).filter(([path, values]) => !values.includes(c[path]));
  return [
    ...missing.map((path) => ({ path, message: 'must be given, got nothing' })),
    ...wrong.map(([path, values]) => ({
      path,
      message: `supported: ${values.map(quote).join(' or ')}, got ${quote(c[path])}`,
    })),
    ...(c.linear_attn_config === undefined ? [] : scheduleProblems(c.linear_attn_config as Partial<Schedule>, c)),
  ];
}

function scheduleProblems(schedule: Partial<Schedule>, { num_hidden_layers: count }: Json): Problem[] {
  const at = 'linear_attn_config';
  const { full_attn_layers: full, kda_layers: kda } = schedule;
  if (!Array.isArray(full) || !Array.isArray(kda))
    return [{ path: at, message: `must hold the lists full_attn_layers and kda_layers, got ${quote(schedule)}` }];
  const layers = Array.from({ length: Number(count) }, (_, i) => i + 1);
  const odd = layers.filter((layer) => full.includes(layer) === kda.includes(layer));
  const beyond = [...full, ...kda].filter((layer) => !layers.includes(layer));
  return [
    ...(odd.length ? [{ path: at, message: `each layer must be in one of the two lists, got ${quote(odd)}` }] : []),
    ...(beyond.length
      ? [{ path: at, message: `its lists count layers from 1 to ${count}, got ${quote(beyond)}` }]
      : []),
  ];
}

/**
 * A published `config.json` for our config. `balanceRate` and `chunkSize`, which have no place in it, are left out.
 * @throws ConfigError listing everything that the published model class cannot say
 */
export function configToKimiLinear(config: ModelConfig): Json {
  const [kda, mla] = (['kda', 'mla'] as const).map((type) => config.mixers.find((mixer) => mixer.type === type));
  const problems = [
    ...config.mixers.flatMap((mixer, i) => unsayable(mixer, mixer.type === 'kda' ? kda : mla, `mixers[${i}]`)),
    ...ternaryProblems(config),
    ...(kda && mla ? [] : [{ path: 'mixers', message: 'must hold layers of kda and of mla' }]),
  ];
  if (problems.length) throw new ConfigError('configToKimiLinear', problems);
  const layersOf = (type: string) => config.mixers.flatMap((mixer, i) => (mixer.type === type ? [i + 1] : []));
  const [{ numHeads, headDim, convSize }, latent] = [kda as KdaConfig, mla as MlaConfig];
  return {
    architectures: ['KimiLinearForCausalLM'],
    ...defaults,
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.mlp.intermediateSize,
    num_hidden_layers: config.numLayers,
    num_attention_heads: latent.numHeads,
    num_key_value_heads: latent.numHeads,
    initializer_range: config.initializerRange,
    rms_norm_eps: config.normEps,
    tie_word_embeddings: config.tieEmbeddings,
    kv_lora_rank: latent.kvLoraRank,
    q_lora_rank: latent.qLoraRank,
    qk_nope_head_dim: latent.qkNopeHeadDim,
    qk_rope_head_dim: latent.qkRopeHeadDim,
    v_head_dim: latent.vHeadDim,
    mla_use_nope: latent.ropeBase === null,
    rope_theta: latent.ropeBase ?? defaults.rope_theta,
    ...expertsTo(config),
    linear_attn_config: {
      full_attn_layers: layersOf('mla'),
      kda_layers: layersOf('kda'),
      num_heads: numHeads,
      head_dim: headDim,
      short_conv_kernel_size: convSize,
    },
  };
}

function expertsTo({ mlp: { moe } }: ModelConfig): Json {
  if (!moe) return {};
  return {
    num_experts: moe.numExperts,
    num_experts_per_token: moe.numExpertsPerToken,
    num_shared_experts: moe.numSharedExperts,
    moe_intermediate_size: moe.moeIntermediateSize,
    moe_renormalize: moe.renormalize,
    routed_scaling_factor: moe.routedScalingFactor,
    num_expert_group: moe.numExpertGroup,
    topk_group: moe.topkGroup,
    first_k_dense_replace: moe.firstKDenseReplace,
    moe_layer_freq: moe.moeLayerFreq,
  };
}

/** @param first the first layer of the same type */
function unsayable(mixer: MixerConfig, first: MixerConfig | undefined, at: string): Problem[] {
  if (mixer.type !== 'kda' && mixer.type !== 'mla')
    return [{ path: `${at}.type`, message: `must be kda or mla, got ${quote(mixer.type)}` }];
  if (JSON.stringify(mixer) !== JSON.stringify(first))
    return [{ path: at, message: `all layers of ${mixer.type} must have the same options` }];
  if (mixer.type === 'mla') return [];
  const fixed = {
    ...{ numVHeads: mixer.numHeads, expandV: 1, useShortConv: true, convBias: false },
    ...{ allowNegEigval: false, lowerBound: null, gateBias: false },
  };
  return Object.entries(fixed)
    .filter(([key, value]) => mixer[key as keyof typeof fixed] !== value)
    .map(([key, value]) => ({
      path: `${at}.${key}`,
      message: `must be ${quote(value)}, got ${quote(mixer[key as keyof typeof fixed])}`,
    }));
}

/** What stands behind one weight of ours: its own shape, and the published tensors whose numbers, one after another, are its numbers. */
interface Source {
  own: number[];
  names: string[];
  /** Shape of each of them. */
  shape: number[];
}

const renamed: [from: RegExp, to: string][] = [
  [/\.attn_norm\./, '.input_layernorm.'],
  [/\.mlp_norm\./, '.post_attention_layernorm.'],
  [/\.attn\.([fg])_proj\.0\./, '.self_attn.$1_a_proj.'],
  [/\.attn\.([fg])_proj\.1\./, '.self_attn.$1_b_proj.'],
  [/\.attn\./, '.self_attn.'],
];

/** The published tensors of every weight of ours. */
function sources(config: ModelConfig): Map<string, Source> {
  const entries = [...namedSpecs(config)].map(([name, { shape }]): [string, Source] => [
    name,
    { own: shape, ...published(name, shape, config) },
  ]);
  return new Map(entries);
}

function published(name: string, shape: number[], { mlp }: ModelConfig): Omit<Source, 'own'> {
  if (name === TABLE) return { names: ['model.embed_tokens.weight'], shape };
  const layer = Number(/^model\.layers\.(\d+)\.mlp\./.exec(name)?.[1] ?? Number.NaN);
  if (hasExperts(mlp.moe, layer)) {
    const there = name.replace('.mlp.', '.block_sparse_moe.');
    const [, experts, part] = /^(.*\.experts)\.(w[123])$/.exec(there) ?? [];
    if (!experts) return { names: [there], shape };
    return {
      names: Array.from({ length: shape[0] }, (_, e) => `${experts}.${e}.${part}.weight`),
      shape: shape.slice(1),
    };
  }
  const there = renamed.reduce((text, [from, to]) => text.replace(from, to), name);
  return { names: [there], shape: name.endsWith('.A_log') ? [1, 1, shape[0], 1] : shape };
}

/**
 * The tensors of a published checkpoint as `CausalLM` takes them: data are shared, but for the experts, which are stacked. Those are
 * taken out of `tensors` one by one, so that no more than one stack is held twice. What does not fit keeps its published name or shape,
 * and the model will name it.
 */
export function weightsFromKimiLinear(tensors: Arrays, config: ModelConfig): NamedArrays {
  const weights: Arrays = new Map();
  const used = new Set<string>();
  for (const [name, { own, names, shape }] of sources(config)) {
    const parts = names.map((part) => tensors.get(part));
    const fits = parts.every((part) => part && `${part.shape}` === `${shape}`);
    if (!fits && names.length > 1) continue;
    for (const part of names) used.add(part);
    if (names.length > 1) weights.set(name, { shape: own, data: stack(tensors, names, own) });
    else if (parts[0]) weights.set(name, { shape: fits ? own : parts[0].shape, data: parts[0].data });
  }
  for (const [name, tensor] of tensors) if (!used.has(name)) weights.set(name, tensor);
  return weights;
}

function stack(tensors: Arrays, names: string[], shape: number[]): Float32Array {
  const data = new Float32Array(shape.reduce((size, n) => size * n, 1));
  for (const [e, name] of names.entries()) {
    const one = (tensors.get(name) as { data: Float32Array }).data;
    data.set(one, e * one.length);
    tensors.delete(name);
  }
  return data;
}

/** Weights of ours under their published names and shapes; data are shared. */
export function weightsToKimiLinear(weights: NamedArrays, config: ModelConfig): NamedArrays {
  const tensors: Arrays = new Map();
  for (const [name, { names, shape }] of sources(config)) {
    const { data } = weights.get(name) as { data: Float32Array };
    const size = data.length / names.length;
    for (const [e, part] of names.entries())
      tensors.set(part, { shape, data: data.subarray(e * size, (e + 1) * size) });
  }
  return tensors;
}
