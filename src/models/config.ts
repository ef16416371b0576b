/** The config of every language model here: one schema, its defaults and the rules across settings. */
import * as z from 'zod';
import { ConfigError, formatPath, type Problem, schemaProblems } from '../config/problems.js';
import { lenientParse, type Path } from '../config/schemaWalk.js';
import { type MixerConfig, type MixerType, mixerDefaultsSchema, mixerSchema, settingsOf } from './mixers/index.js';
import { count, type MixerSettings } from './mixers/mixer.js';
import { type MoeConfig, moeRules, moeSchema } from './mlps/moe.js';

/** What a model config file may say. */
export const modelConfigSchema = z
  .strictObject({
    $schema: z.string().optional(),
    modelType: z.literal('causal_lm').default('causal_lm'),
    vocabSize: count().default(256).describe('number of token ids'),
    hiddenSize: count().default(256).describe('width of the residual stream'),
    numLayers: count().default(4),
    mixers: z
      .array(mixerSchema)
      .min(1)
      .default(['gla'])
      .describe('mixing layers by name or with options, repeated in turn up to numLayers'),
    mixerDefaults: mixerDefaultsSchema
      .default({})
      .describe('options of all mixers of a type; options in `mixers` come before them'),
    mlp: z
      .strictObject({
        hiddenRatio: z.number().positive().default(4).describe('intermediateSize is about 2/3 hiddenRatio hiddenSize'),
        intermediateSize: count()
          .optional()
          .describe('width inside; default 2/3 hiddenRatio hiddenSize, rounded up to 256'),
        moe: moeSchema.optional().describe('a mixture of experts in place of the SwiGLU, in all layers but the first'),
      })
      .default({ hiddenRatio: 4 })
      .describe('channel mixer of each layer: SwiGLU, or with `moe` a mixture of experts'),
    normEps: z.number().positive().default(1e-6),
    tieEmbeddings: z.boolean().default(true).describe('the output projection is the embedding table'),
    initializerRange: z.number().positive().default(0.02).describe('standard deviation of the initial weights'),
    chunkSize: count().default(64).describe('tokens per chunk of the chunkwise forms'),
  })
  .describe('A decoder-only language model of seqmix');

export type ModelConfigInput = z.input<typeof modelConfigSchema>;

/** A complete model config: every option there, one mixer per layer. Resolving it again gives it again. */
export interface ModelConfig {
  modelType: 'causal_lm';
  vocabSize: number;
  hiddenSize: number;
  numLayers: number;
  /** One entry per layer, with all options. */
  mixers: MixerConfig[];
  /** Without `moe` every layer has a SwiGLU. */
  mlp: { hiddenRatio: number; intermediateSize: number; moe?: MoeConfig };
  normEps: number;
  tieEmbeddings: boolean;
  initializerRange: number;
  chunkSize: number;
}

/**
 * Fills in every default of a model config and repeats its mixers up to `numLayers`.
 * @param raw what a model config file says, or part of it
 * @param source where it came from, for the error
 * @throws ConfigError listing every unknown key, wrong type and combination that cannot be
 */
export function resolveModelConfig(raw: unknown, source = 'model config'): ModelConfig {
  const problems = modelProblems(raw);
  if (problems.length) throw new ConfigError(source, problems);
  const config = modelConfigSchema.parse(raw);
  const { $schema: _, mixerDefaults: _d, mixers: _m, ...rest } = config;
  const mixers = mixerOptions(raw as ModelConfigInput, config.numLayers).map(({ options }) =>
    parseMixer(options, config),
  );
  return { ...rest, mixers, mlp: resolveMlp(config) };
}

/** Everything wrong with a model config; `at` is put before each path. */
export function modelProblems(raw: unknown, at: Path = []): Problem[] {
  const problems = schemaProblems(modelConfigSchema, raw, at);
  const config = lenientParse(modelConfigSchema, raw);
  if (!config) return problems;
  for (const [key, fault] of moeRules(config.mlp?.moe ?? {}))
    problems.push({ path: formatPath([...at, 'mlp', 'moe', key]), message: fault });
  const input = (raw ?? {}) as ModelConfigInput;
  const seen = new Set<string>();
  const pattern = Array.isArray(input.mixers) ? input.mixers.length : 1;
  for (const { options, index } of mixerOptions(input, Math.min(config.numLayers ?? pattern, pattern))) {
    const settings = settingsOf(options.type);
    const mixer = settings && lenientParse(settings.schema, options);
    if (!mixer) continue;
    for (const [key, fault] of settings.rules(mixer, config)) {
      const path = formatPath([...at, ...placeOf(input, options.type as MixerType, index, key)]);
      if (!seen.has(path + fault)) problems.push({ path, message: fault });
      seen.add(path + fault);
    }
  }
  return problems;
}

/** Where a setting of a layer was written; where it could be when it was not. */
function placeOf(input: ModelConfigInput, type: MixerType, index: number, key: string): Path {
  const given = (input.mixers?.[index] as Record<string, unknown> | undefined)?.[key] !== undefined;
  const shared = (input.mixerDefaults?.[type] as Record<string, unknown> | undefined)?.[key] !== undefined;
  return !given && shared ? ['mixerDefaults', type, key] : ['mixers', index, key];
}

/** The options of each layer as written: those in `mixers` over those in `mixerDefaults`; `index` is the place in `mixers`. */
function mixerOptions(input: ModelConfigInput, layers: number): { options: Record<string, unknown>; index: number }[] {
  const pattern = Array.isArray(input.mixers) && input.mixers.length ? input.mixers : (['gla'] as const);
  return Array.from({ length: layers }, (_, layer) => {
    const index = layer % pattern.length;
    const item = pattern[index];
    const own = typeof item === 'string' ? { type: item } : (item ?? {});
    const shared = input.mixerDefaults?.[(own as { type: MixerType }).type];
    return { options: { ...shared, ...own } as Record<string, unknown>, index };
  });
}

function parseMixer(options: Record<string, unknown>, model: z.output<typeof modelConfigSchema>): MixerConfig {
  const { schema, resolve } = settingsOf(options.type) as MixerSettings;
  return resolve(schema.parse(options), model) as MixerConfig;
}

function resolveMlp({ hiddenSize, mlp }: z.output<typeof modelConfigSchema>): ModelConfig['mlp'] {
  const { moe, ...dense } = mlp;
  const intermediateSize = mlp.intermediateSize ?? publishedWidth(hiddenSize * mlp.hiddenRatio);
  if (!moe) return { ...dense, intermediateSize };
  const moeIntermediateSize = moe.moeIntermediateSize ?? intermediateSize;
  return { ...dense, intermediateSize, moe: { ...moe, moeIntermediateSize } };
}

/** As the published models round it: 2/3, up to a multiple of 256. */
const publishedWidth = (width: number) => 256 * Math.ceil(Math.trunc((width * 2) / 3) / 256);
