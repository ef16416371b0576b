/**
 * Published GLA checkpoints (`fla-hub/gla-*` on the Hugging Face hub; https://github.com/fla-org/flash-linear-attention).
 * Their tensor names and layouts are ours; only the config, and two variants of the tensors, differ. The place for their names.
 */
import { ConfigError, type Problem, quote } from '../../config/problems.js';
import type { NamedArrays } from '../causalLM.js';
import { type ModelConfig, resolveModelConfig } from '../config.js';
import { HEAD } from '../decoder.js';
import type { GlaConfig } from '../mixers/gla.js';

type Json = Record<string, unknown>;

/** What a field that is absent or null means: the defaults of the published model class. */
const defaults = {
  model_type: 'gla',
  hidden_size: 2048,
  expand_k: 0.5,
  expand_v: 1,
  hidden_ratio: 4,
  intermediate_size: null,
  num_hidden_layers: 24,
  num_heads: 4,
  num_kv_heads: null,
  feature_map: null,
  use_short_conv: false,
  conv_size: 4,
  use_output_gate: true,
  clamp_min: null,
  hidden_act: 'swish',
  elementwise_affine: true,
  norm_eps: 1e-6,
  use_gk: true,
  use_gv: false,
  attn: null,
  tie_word_embeddings: false,
  initializer_range: 0.02,
  vocab_size: 32000,
} as const;

/** Fields whose other values change the model in ways we do not have. */
const supported: Record<string, readonly unknown[]> = {
  model_type: ['gla'],
  feature_map: [null, 'relu'],
  hidden_act: ['swish', 'silu'],
  elementwise_affine: [true],
  use_gk: [true],
  use_gv: [false],
  attn: [null],
};

/** True when a `config.json` is of a published GLA model. */
export const isFlaConfig = (json: unknown): boolean => (json as Json | null)?.model_type === 'gla';

/**
 * Our config for a published `config.json`. Missing fields have the published defaults; unknown ones, and those without numerical
 * meaning (`attn_mode`, `fuse_norm`, ...), are ignored.
 * @param source where it came from, for the error
 * @throws ConfigError listing every field with a value that we do not support
 */
export function configFromFla(json: unknown, source = 'config.json'): ModelConfig {
  const given = Object.entries((json ?? {}) as Json).filter(([, value]) => value !== null);
  const c: Json = { ...defaults, ...Object.fromEntries(given) };
  const problems = Object.entries(supported).flatMap(([path, values]): Problem[] =>
    values.includes(c[path])
      ? []
      : [{ path, message: `supported: ${values.map(quote).join(' or ')}, got ${quote(c[path])}` }],
  );
  if (problems.length) throw new ConfigError(source, problems);
  const gla = {
    type: 'gla',
    numHeads: c.num_heads,
    numKvHeads: c.num_kv_heads ?? undefined,
    expandK: c.expand_k,
    expandV: c.expand_v,
    featureMap: c.feature_map,
    useShortConv: c.use_short_conv,
    convSize: c.conv_size,
    useOutputGate: c.use_output_gate,
    clampMin: c.clamp_min,
  };
  const model = {
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    numLayers: c.num_hidden_layers,
    mixers: [gla],
    mlp: { hiddenRatio: c.hidden_ratio, intermediateSize: c.intermediate_size ?? undefined },
    normEps: c.norm_eps,
    tieEmbeddings: c.tie_word_embeddings,
    initializerRange: c.initializer_range,
  };
  return resolveModelConfig(model, source);
}

/**
 * A published `config.json` for our config.
 * @throws ConfigError listing everything that the published model class cannot say
 */
export function configToFla(config: ModelConfig): Json {
  const problems = config.mixers.flatMap((mixer, i) => unsayable(mixer, config.mixers[0], `mixers[${i}]`));
  if (problems.length) throw new ConfigError('configToFla', problems);
  const gla = config.mixers[0] as GlaConfig;
  return {
    architectures: ['GLAForCausalLM'],
    ...defaults,
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    num_hidden_layers: config.numLayers,
    hidden_ratio: config.mlp.hiddenRatio,
    intermediate_size: config.mlp.intermediateSize,
    norm_eps: config.normEps,
    tie_word_embeddings: config.tieEmbeddings,
    initializer_range: config.initializerRange,
    num_heads: gla.numHeads,
    num_kv_heads: gla.numKvHeads === gla.numHeads ? null : gla.numKvHeads,
    expand_k: gla.expandK,
    expand_v: gla.expandV,
    feature_map: gla.featureMap,
    use_short_conv: gla.useShortConv,
    conv_size: gla.convSize,
    use_output_gate: gla.useOutputGate,
    clamp_min: gla.clampMin,
  };
}

function unsayable(mixer: ModelConfig['mixers'][number], first: ModelConfig['mixers'][number], at: string): Problem[] {
  if (mixer.type !== 'gla') return [{ path: `${at}.type`, message: `must be gla, got ${quote(mixer.type)}` }];
  if (JSON.stringify(mixer) !== JSON.stringify(first))
    return [{ path: at, message: 'all layers must have the same options' }];
  const fixed = { gateFn: 'silu', convBias: false, gateLogitNormalizer: 16, gateLowRankDim: 16 } as const;
  return Object.entries(fixed)
    .filter(([key, value]) => mixer[key as keyof typeof fixed] !== value)
    .map(([key, value]) => ({
      path: `${at}.${key}`,
      message: `must be ${quote(value)}, got ${quote(mixer[key as keyof typeof fixed])}`,
    }));
}

/**
 * The tensors of a published checkpoint as `CausalLM` takes them; data are shared, not copied. Two variants are put right: a fused
 * `mlp.gate_proj.weight` [2 * intermediate, hidden] of older uploads (gate above up), and the copy of the table that some uploads
 * of tied models hold as `lm_head.weight`.
 */
export function weightsFromFla(tensors: NamedArrays, { mlp, tieEmbeddings }: ModelConfig): NamedArrays {
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const [name, tensor] of tensors) {
    const up = name.replace(/\.mlp\.gate_proj\.weight$/, '.mlp.up_proj.weight');
    const { shape, data } = tensor;
    if (tieEmbeddings && name === HEAD) continue;
    if (up === name || tensors.has(up) || shape[0] !== 2 * mlp.intermediateSize) weights.set(name, tensor);
    else {
      const half = [mlp.intermediateSize, ...shape.slice(1)];
      weights.set(name, { shape: half, data: data.subarray(0, data.length / 2) });
      weights.set(up, { shape: half, data: data.subarray(data.length / 2) });
    }
  }
  return weights;
}
