/**
 * Published hybrids of Qwen3 (`amazon/GKA-primed-HQwen3-*` on the Hugging Face hub; https://github.com/awslabs/hybrid-model-factory):
 * layers of softmax attention, some of which are replaced by Gated KalmaNet, Gated DeltaNet or attention with a window, as
 * `hybrid_override_pattern` says. The place for their names.
 */
import { ConfigError, type Problem, quote } from '../../config/problems.js';
import { type ModelConfig, resolveModelConfig } from '../config.js';
import { namedSpecs, TABLE } from '../decoder.js';
import type { MixerConfig, MixerConfigOf } from '../mixers/index.js';
import type { NamedArrays } from '../trainableModel.js';
import { type HybridLayer, hybridLayers, layerTypeOf, otherLayers } from './hybridLayers.js';
import { firstOfEach, repeatHeadRows, type WeightArray } from './sharedRows.js';
import { ternaryProblems } from './ternary.js';

type Json = Record<string, unknown>;
type Arrays = Map<string, WeightArray>;

/** What an absent field means: the defaults of the published model class. */
const defaults = {
  model_type: 'hybrid_qwen3',
  vocab_size: 151936,
  hidden_size: 4096,
  intermediate_size: 22016,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  head_dim: 128,
  hidden_act: 'silu',
  attention_bias: false,
  initializer_range: 0.02,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
} as const;

/** Base of the rotary positions where a config does not say. */
const ROPE_THETA = 10000;

/** Fields whose other values change the model in ways we do not have. */
const supported: Record<string, readonly unknown[]> = {
  model_type: ['hybrid_qwen3'],
  hidden_act: ['silu'],
  attention_bias: [false],
  rope_scaling: [undefined],
  'rope_parameters.rope_type': ['default'],
};

/** True when a `config.json` is of a published hybrid, be it one that `configFromHybridQwen3` reads or one of another base model. */
export const isHybridConfig = (json: unknown): boolean => {
  const { model_type: type, hybrid_override_pattern: pattern } = (json ?? {}) as Json;
  return type === 'hybrid_qwen3' || (typeof pattern === 'string' && /^hybrid_/.test(String(type)));
};

/**
 * Our config for a published `config.json`. Missing fields have the published defaults; unknown ones, and those without numerical
 * meaning, are ignored. Heads and their width are those of the attention layers in all layers.
 * @param source where it came from, for the error
 * @throws ConfigError listing every field with a value, and every type of layer, that we do not support
 */
export function configFromHybridQwen3(json: unknown, source = 'config.json'): ModelConfig {
  const c = withDefaults((json ?? {}) as Json);
  const problems = readProblems(c);
  if (problems.length) throw new ConfigError(source, problems);
  const model = {
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    numLayers: c.num_hidden_layers,
    mixers: typesOf(c).map((type) => mixerFrom(hybridLayers[type], c)),
    mlp: { intermediateSize: c.intermediate_size },
    normEps: c.rms_norm_eps,
    tieEmbeddings: c.tie_word_embeddings,
    initializerRange: c.initializer_range,
  };
  return resolveModelConfig(model, source);
}

function withDefaults(json: Json): Json {
  const given = Object.entries(json).filter(([, value]) => value !== null);
  const c: Json = { ...defaults, ...Object.fromEntries(given) };
  if (json.num_key_value_heads === null) c.num_key_value_heads = c.num_attention_heads;
  const rope = (c.rope_parameters ?? {}) as Json;
  return {
    ...c,
    'rope_parameters.rope_type': rope.rope_type ?? 'default',
    rope_theta: rope.rope_theta ?? c.rope_theta ?? ROPE_THETA,
  };
}

const typesOf = (c: Json) => String(c.hybrid_override_pattern).split('-');

function mixerFrom({ mixer, part, fields }: HybridLayer, c: Json): Json {
  const own = (part && (c[part] as Json)) || {};
  const entries = Object.entries(fields).map(([name, { option, absent }]) => [option, own[name] ?? absent]);
  const options: Json = {
    type: mixer,
    headDim: c.head_dim,
    numHeads: c.num_attention_heads,
    ...Object.fromEntries(entries),
  };
  if (options.normEps === c.rms_norm_eps) delete options.normEps;
  const shared = c.num_key_value_heads;
  if (mixer === 'softmax_attention') return { ...options, numKvHeads: shared, ropeBase: c.rope_theta, qkNorm: true };
  if (mixer === 'gated_delta_net') return { ...options, expandV: 1 };
  const alone = shared === c.num_attention_heads || options.kvProjRank === null; // nothing reads the maps then
  return {
    ...options,
    ...(alone && { kvProjRank: null, kvLearnableResidual: false }),
    numKHeads: shared,
    numVHeads: shared,
  };
}

function readProblems(c: Json): Problem[] {
  const wrong = Object.entries(supported).filter(([path, values]) => !values.includes(c[path]));
  return [
    ...wrong.map(([path, values]) => unsupported(path, values, c[path])),
    ...(c.hybrid_override_pattern === undefined
      ? [{ path: 'hybrid_override_pattern', message: 'must be given, got nothing' }]
      : patternProblems(c)),
  ];
}

const unsupported = (path: string, values: readonly unknown[], got: unknown): Problem => ({
  path,
  message: `supported: ${values.map(quote).join(' or ')}, got ${quote(got)}`,
});

function patternProblems(c: Json): Problem[] {
  const path = 'hybrid_override_pattern';
  const types = typesOf(c);
  const [known, unknown] = [true, false].map((have) =>
    [...new Set(types)].filter((type) => Object.hasOwn(hybridLayers, type) === have),
  );
  const layersOf = (type: string) => types.flatMap((t, i) => (t === type ? [i] : [])).join(', ');
  return [
    ...(types.length === c.num_hidden_layers
      ? []
      : [{ path, message: `must name ${c.num_hidden_layers} layers (num_hidden_layers), got ${types.length}` }]),
    ...unknown.map((type) => ({
      path,
      message: `supported: ${Object.keys(hybridLayers).join(', ')}; layers ${layersOf(type)} are "${type}"${why(type)}`,
    })),
    ...known.flatMap((type) => partProblems(hybridLayers[type], c)),
  ];
}

function why(type: string): string {
  if (Object.hasOwn(otherLayers, type)) return `: ${otherLayers[type]}`;
  const fused = /^\*DA$|^\w+\*$|>/.test(type);
  return fused ? ': two layers in one, as in the middle of priming; unfuse the model with its own tools first' : '';
}

function partProblems({ part, fields, supported: known }: HybridLayer, c: Json): Problem[] {
  if (!part) return [];
  const own = (c[part] ?? {}) as Json;
  const missing = Object.entries(fields).filter(([name, { absent }]) => (own[name] ?? absent) === undefined);
  const wrong = Object.entries(known).filter(([name, values]) => !values.includes(own[name] ?? values[0]));
  return [
    ...missing.map(([name]) => ({ path: `${part}.${name}`, message: 'must be given, got nothing' })),
    ...wrong.map(([name, values]) => unsupported(`${part}.${name}`, values, own[name])),
  ];
}

/**
 * A published `config.json` for our config. The chunk size, which has a place only in `gka_config`, is otherwise left out.
 * @throws ConfigError listing everything that the published model class cannot say
 */
export function configToHybridQwen3(config: ModelConfig): Json {
  const types = config.mixers.map(layerTypeOf);
  const none = config.mixers.flatMap(({ type }, i) => (types[i] === undefined ? [{ type, i }] : []));
  if (none.length)
    throw new ConfigError(
      'configToHybridQwen3',
      none.map(({ type, i }) => ({ path: `mixers[${i}].type`, message: `has no name there, got ${quote(type)}` })),
    );
  const attention = config.mixers.find((mixer) => mixer.type === 'softmax_attention');
  const json = {
    architectures: ['HybridQwen3ForCausalLM'],
    ...defaults,
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.mlp.intermediateSize,
    num_hidden_layers: config.numLayers,
    ...headsTo(config),
    initializer_range: config.initializerRange,
    rms_norm_eps: config.normEps,
    tie_word_embeddings: config.tieEmbeddings,
    rope_theta: attention?.ropeBase ?? ROPE_THETA,
    hybrid_override_pattern: types.join('-'),
    ...Object.fromEntries([...new Set(types as string[])].flatMap((type) => partTo(type, config))),
  };
  checkReadsBack(json, config);
  return json;
}

/** All layers share these, so any layer tells; only those of attention and of `gka` tell of shared heads. */
function headsTo({ mixers }: ModelConfig): Json {
  const [{ numHeads, headDim }] = mixers as MixerConfigOf<'gka'>[];
  const told = mixers.flatMap((mixer) =>
    mixer.type === 'softmax_attention' ? [mixer.numKvHeads] : mixer.type === 'gka' ? [mixer.numKHeads] : [],
  );
  return { num_attention_heads: numHeads, num_key_value_heads: told[0] ?? numHeads, head_dim: headDim };
}

function partTo(type: string, { mixers, normEps }: ModelConfig): [string, Json][] {
  const { part, fields } = hybridLayers[type];
  if (!part) return [];
  const mixer = mixers.find((one) => layerTypeOf(one) === type) as unknown as Json;
  const values = Object.entries(fields).map(([name, { option }]) => [
    name,
    option === 'normEps' ? (mixer.normEps ?? normEps) : mixer[option],
  ]);
  return [[part, Object.fromEntries(values)]];
}

/** What the published class cannot say is read back as something else. */
function checkReadsBack(json: Json, config: ModelConfig): void {
  const back = configFromHybridQwen3(json, 'configToHybridQwen3');
  const problems = config.mixers.flatMap((mixer, i) => differences(mixer, back.mixers[i], `mixers[${i}]`));
  if (config.mlp.moe) problems.push({ path: 'mlp.moe', message: 'the published class has no experts' });
  problems.push(...ternaryProblems(config));
  if (problems.length) throw new ConfigError('configToHybridQwen3', problems);
}

function differences(mixer: MixerConfig, back: MixerConfig, at: string): Problem[] {
  const [ours, theirs] = [mixer, back] as unknown as Json[];
  const keys = [...new Set([...Object.keys(ours), ...Object.keys(theirs)])];
  return keys
    .filter((key) => ours[key] !== theirs[key] && !(key === 'chunkSize' && mixer.type !== 'gka'))
    .map((key) => ({ path: `${at}.${key}`, message: `must be ${quote(theirs[key])}, got ${quote(ours[key])}` }));
}

/** Our name of a weight as published. */
function publishedName(name: string, { mixers }: ModelConfig): string {
  if (name === TABLE) return 'model.embed_tokens.weight';
  const [, layer] = /^model\.layers\.(\d+)\./.exec(name) ?? [];
  if (layer === undefined) return name;
  const type = layerTypeOf(mixers[Number(layer)]);
  const folder = type === undefined ? 'attn' : hybridLayers[type].folder;
  return name
    .replace('.attn_norm.', '.input_layernorm.')
    .replace('.mlp_norm.', '.post_attention_layernorm.')
    .replace('.attn.', `.${folder}.`)
    .replace('.gdn.a_proj.', '.gdn.gk_proj.');
}

/** Tensors that published layers hold and do not read, depending on their options. */
const UNREAD = /\.gka\.(a_proj\.weight|A_log|dt_bias|proj_[kv]\.linear[AB]\.weight|[kv]_rep)$/;
/** Weights of a Gated DeltaNet whose rows are heads of k or v. */
const SHARED = /\.attn\.[kv]_(proj|conv1d)\.(weight|bias)$/;

/**
 * The tensors of a published checkpoint as `CausalLM` takes them; data are shared, but for the keys and values of Gated DeltaNet layers:
 * there heads of q share them, here each has its own, so they are repeated. What does not fit keeps its published name or shape, and the
 * model will name it.
 */
export function weightsFromHybridQwen3(tensors: Arrays, config: ModelConfig): NamedArrays {
  const weights: Arrays = new Map();
  const used = new Set<string>();
  for (const [name, { shape }] of namedSpecs(config)) {
    const there = publishedName(name, config);
    const tensor = tensors.get(there);
    if (!tensor) continue;
    used.add(there);
    const rows = headRows(name, config);
    weights.set(name, rows ? repeatHeadRows(tensor, rows, shape[0]) : tensor);
  }
  for (const [name, tensor] of tensors) {
    const unread = UNREAD.test(name) || (config.tieEmbeddings && name === 'lm_head.weight');
    if (!used.has(name) && !unread) weights.set(name, tensor);
  }
  return weights;
}

/** Rows of one head in a weight whose heads are repeated; undefined for any other weight. */
function headRows(name: string, { mixers }: ModelConfig): number | undefined {
  const [, layer] = /^model\.layers\.(\d+)\./.exec(name) ?? [];
  const mixer = layer === undefined ? undefined : mixers[Number(layer)];
  return mixer?.type === 'gated_delta_net' && SHARED.test(name) ? mixer.headDim : undefined;
}

/**
 * Weights of ours under their published names; data are shared. Key and value heads of a Gated DeltaNet are written once for all that
 * share them.
 * @throws RangeError when those have come to differ
 */
export function weightsToHybridQwen3(weights: NamedArrays, config: ModelConfig): NamedArrays {
  const { num_attention_heads: heads, num_key_value_heads: shared } = headsTo(config) as Record<string, number>;
  const tensors: Arrays = new Map();
  for (const [name, { shape }] of namedSpecs(config)) {
    const { data } = weights.get(name) as { data: Float32Array };
    const rows = headRows(name, config);
    const tensor = { shape, data };
    const kept = rows ? firstOfEach(tensor, rows, heads / shared) : tensor;
    if (!kept)
      throw new RangeError(
        `weightsToHybridQwen3: heads of ${name} that share keys and values there must be equal, but they have come to differ`,
      );
    tensors.set(publishedName(name, config), kept);
  }
  return tensors;
}
