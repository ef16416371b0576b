/**
 * Published checkpoints of flash-linear-attention (`fla-hub/*` on the Hugging Face hub; https://github.com/fla-org/flash-linear-attention):
 * GLA, DeltaNet, Gated DeltaNet, KDA. Their tensor names and layouts are ours; only the config, and two variants of the tensors, differ.
 */
import { ConfigError, type Problem, quote } from '../../config/problems.js';
import { type ModelConfig, resolveModelConfig } from '../config.js';
import { HEAD } from '../decoder.js';
import type { MixerConfig } from '../mixers/index.js';
import type { NamedArrays } from '../trainableModel.js';
import { type FlaClass, flaClasses, impliedOptions, optionOf } from './flaClasses.js';
import { ternaryProblems } from './ternary.js';

type Json = Record<string, unknown>;

/** What a field that is absent or null means in all classes; those of the mixers stand in `flaClasses`. */
const defaults = {
  hidden_size: 2048,
  hidden_ratio: 4,
  intermediate_size: null,
  hidden_act: 'swish',
  norm_eps: 1e-6,
  attn: null,
  tie_word_embeddings: false,
  initializer_range: 0.02,
  vocab_size: 32000,
} as const;

/** Of every class: fields whose other values change the model in ways we do not have. */
const supported: Record<string, readonly unknown[]> = { hidden_act: ['swish', 'silu'], attn: [null] };

const classOf = (json: unknown): FlaClass | undefined =>
  flaClasses.find(({ modelType }) => modelType === (json as Json | null)?.model_type);

/** True when a `config.json` is of a published model that `configFromFla` reads. */
export const isFlaConfig = (json: unknown): boolean => classOf(json) !== undefined;

/**
 * Our config for a published `config.json`. Missing fields have the published defaults; unknown ones, and those without numerical
 * meaning (`attn_mode`, `fuse_norm`, ...), are ignored. Without a `model_type` it is GLA's.
 * @param source where it came from, for the error
 * @throws ConfigError listing every field with a value that we do not support
 */
export function configFromFla(json: unknown, source = 'config.json'): ModelConfig {
  const { model_type: modelType = 'gla', ...fields } = (json ?? {}) as Json;
  const found = classOf({ model_type: modelType });
  const given = Object.entries(fields).filter(([, value]) => value !== null);
  const c: Json = { ...absentValues(found ?? flaClasses[0]), ...Object.fromEntries(given) };
  const problems = Object.entries({ ...supported, ...found?.supported }).flatMap(([path, values]): Problem[] =>
    values.includes(c[path]) ? [] : [unsupported(path, values, c[path])],
  );
  const types = flaClasses.map((f) => f.modelType);
  if (!found) problems.push(unsupported('model_type', types, modelType));
  if (!found || problems.length) throw new ConfigError(source, problems);
  const options = Object.entries(found.fields).map(([name, { option }]) => [option, c[name]] as const);
  const model = {
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    numLayers: c.num_hidden_layers,
    mixers: [{ type: found.mixer, ...Object.fromEntries(options.map(ourValue)) }],
    mlp: { hiddenRatio: c.hidden_ratio, intermediateSize: c.intermediate_size ?? undefined },
    normEps: c.norm_eps,
    tieEmbeddings: c.tie_word_embeddings,
    initializerRange: c.initializer_range,
  };
  return resolveModelConfig(model, source);
}

/** What absent fields of a class mean. */
function absentValues({ fields, supported: known, numLayers }: FlaClass): Json {
  const mixer = Object.entries(fields).map(([name, { absent }]) => [name, absent]);
  const others = Object.entries(known).map(([name, values]) => [name, values[0]]);
  return { ...defaults, num_hidden_layers: numLayers, ...Object.fromEntries([...others, ...mixer]) };
}

/** A null that stands for another option's value is an option left out. */
const ourValue = ([option, value]: readonly [string, unknown]) => [
  option,
  value === null && option in impliedOptions ? undefined : value,
];

const unsupported = (path: string, values: readonly unknown[], got: unknown): Problem => ({
  path,
  message: `supported: ${values.map(quote).join(' or ')}, got ${quote(got)}`,
});

/**
 * A published `config.json` for our config.
 * @throws ConfigError listing everything that the published model class cannot say
 */
export function configToFla(config: ModelConfig): Json {
  const [first] = config.mixers;
  const found = flaClasses.find(({ mixer }) => mixer === first.type);
  const problems = config.mixers.flatMap((mixer, i) => unsayable(mixer, first, found, `mixers[${i}]`));
  if (config.mlp.moe) problems.push({ path: 'mlp.moe', message: 'the published classes have no experts' });
  problems.push(...ternaryProblems(config));
  if (!found || problems.length) throw new ConfigError('configToFla', problems);
  const fields = Object.entries(found.fields).map(([name, { option }]) => {
    const implied = optionOf(first, impliedOptions[option]);
    const value = optionOf(first, option);
    return [name, value === implied ? null : value];
  });
  return {
    architectures: [found.architecture],
    model_type: found.modelType,
    ...absentValues(found),
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    num_hidden_layers: config.numLayers,
    hidden_ratio: config.mlp.hiddenRatio,
    intermediate_size: config.mlp.intermediateSize,
    norm_eps: config.normEps,
    tie_word_embeddings: config.tieEmbeddings,
    initializer_range: config.initializerRange,
    ...Object.fromEntries(fields),
  };
}

function unsayable(mixer: MixerConfig, first: MixerConfig, found: FlaClass | undefined, at: string): Problem[] {
  if (!found || mixer.type !== found.mixer) {
    const wanted = found ? found.mixer : flaClasses.map((f) => f.mixer).join(', ');
    return [{ path: `${at}.type`, message: `must be ${wanted}, got ${quote(mixer.type)}` }];
  }
  if (JSON.stringify(mixer) !== JSON.stringify(first))
    return [{ path: at, message: 'all layers must have the same options' }];
  return Object.entries(found.fixed)
    .filter(([option, value]) => optionOf(mixer, option) !== value)
    .map(([option, value]) => ({
      path: `${at}.${option}`,
      message: `must be ${quote(value)}, got ${quote(optionOf(mixer, option))}`,
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
