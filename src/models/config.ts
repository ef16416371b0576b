/** The config of every language model here: one schema, its defaults and the rules across settings. */
import * as z from 'zod';
import { ConfigError, formatPath, type Problem, quote, schemaProblems } from '../config/problems.js';
import { type Lenient, lenientParse, type Path } from '../config/schemaWalk.js';

const count = () => z.int().positive();

/** Options of the mixer `gla`: gated linear attention (Yang et al. 2023, https://arxiv.org/abs/2312.06635). */
export const glaSchema = z.strictObject({
  type: z.literal('gla'),
  numHeads: count().default(4).describe('heads of q'),
  numKvHeads: count().optional().describe('heads of k, v and the gate; divides numHeads, which is the default'),
  expandK: z.number().positive().default(0.5).describe('key width of all heads together / hiddenSize'),
  expandV: z.number().positive().default(1).describe('value width of all heads together / hiddenSize'),
  featureMap: z.enum(['relu']).nullable().default(null).describe('applied to q and k'),
  useShortConv: z.boolean().default(false).describe('causal depthwise convolution and SiLU on q, k and v'),
  convSize: count().default(4).describe('taps of the short convolution'),
  convBias: z.boolean().default(false),
  useOutputGate: z.boolean().default(true),
  gateFn: z.enum(['silu', 'sigmoid']).default('silu').describe('activation of the output gate'),
  gateLogitNormalizer: z.number().positive().default(16).describe('g = logsigmoid(x) / gateLogitNormalizer'),
  gateLowRankDim: count().default(16).describe('rank of the forget gate projection'),
  clampMin: z.number().max(0).nullable().default(null).describe('lower bound of the log gate; null: none'),
  chunkSize: count().optional().describe("tokens per chunk; default: the model's chunkSize"),
});

/** Options of the mixer `softmax_attention`: causal softmax attention with rotary positions. */
export const softmaxAttentionSchema = z.strictObject({
  type: z.literal('softmax_attention'),
  numHeads: count().default(4).describe('heads of q'),
  numKvHeads: count().optional().describe('heads of k and v; divides numHeads, which is the default'),
  headDim: count().optional().describe('width of a head; default hiddenSize / numHeads'),
  ropeBase: z.number().positive().nullable().default(10000).describe('base of the rotary positions; null: none'),
  window: count().nullable().default(null).describe('tokens each token can see, itself included; null: all'),
});

/** The option schema of each mixer by its type. A new mixer adds a line here, and one to `mixerRules` if settings must agree. */
export const mixerSchemas = {
  gla: glaSchema,
  softmax_attention: softmaxAttentionSchema,
} as const;

export type MixerType = keyof typeof mixerSchemas;
export type GlaConfig = z.output<typeof glaSchema>;
export type SoftmaxAttentionConfig = z.output<typeof softmaxAttentionSchema>;
/** All options of one mixing layer, `type` says which. */
export type MixerConfig = { [T in MixerType]: z.output<(typeof mixerSchemas)[T]> }[MixerType];

const mixerTypes = Object.keys(mixerSchemas) as [MixerType, ...MixerType[]];
const [firstSchema, ...otherSchemas] = Object.values(mixerSchemas);

/** What a model config file may say. */
export const modelConfigSchema = z
  .strictObject({
    $schema: z.string().optional(),
    modelType: z.literal('causal_lm').default('causal_lm'),
    vocabSize: count().default(256).describe('number of token ids'),
    hiddenSize: count().default(256).describe('width of the residual stream'),
    numLayers: count().default(4),
    mixers: z
      .array(z.union([z.enum(mixerTypes), z.discriminatedUnion('type', [firstSchema, ...otherSchemas])]))
      .min(1)
      .default(['gla'])
      .describe('mixing layers by name or with options, repeated in turn up to numLayers'),
    mixerDefaults: z
      .strictObject({
        gla: glaSchema.omit({ type: true }).partial().optional(),
        softmax_attention: softmaxAttentionSchema.omit({ type: true }).partial().optional(),
      })
      .default({})
      .describe('options of all mixers of a type; options in `mixers` come before them'),
    mlp: z
      .strictObject({
        hiddenRatio: z.number().positive().default(4).describe('intermediateSize is about 2/3 hiddenRatio hiddenSize'),
        intermediateSize: count()
          .optional()
          .describe('width inside; default 2/3 hiddenRatio hiddenSize, rounded up to 256'),
      })
      .default({ hiddenRatio: 4 })
      .describe('SwiGLU channel mixer'),
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
  mlp: { hiddenRatio: number; intermediateSize: number };
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
  return { ...rest, mixers, mlp: { ...config.mlp, intermediateSize: intermediateSize(config) } };
}

/** Everything wrong with a model config; `at` is put before each path. */
export function modelProblems(raw: unknown, at: Path = []): Problem[] {
  const problems = schemaProblems(modelConfigSchema, raw, at);
  const config = lenientParse(modelConfigSchema, raw);
  if (!config) return problems;
  const input = (raw ?? {}) as ModelConfigInput;
  const seen = new Set<string>();
  const pattern = Array.isArray(input.mixers) ? input.mixers.length : 1;
  for (const { options, index } of mixerOptions(input, Math.min(config.numLayers ?? pattern, pattern))) {
    const schema = mixerSchemas[options.type as MixerType];
    const mixer = schema && lenientParse<z.ZodType>(schema, options);
    if (!mixer) continue;
    const rules = mixerRules[options.type as MixerType] as (m: unknown, c: LenientModel) => Rule[];
    for (const [key, fault] of rules(mixer, config)) {
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

type LenientModel = Lenient<z.output<typeof modelConfigSchema>>;
type Rule = [key: string, fault: string];

/** The rules across settings of each mixer: [the setting to change, what is wrong]. A part that is undefined is wrong by itself and skipped. */
const mixerRules: {
  [T in MixerType]: (mixer: Lenient<z.output<(typeof mixerSchemas)[T]>>, model: LenientModel) => Rule[];
} = {
  gla: (m, { hiddenSize }) => [
    ...kvHeads(m),
    ...wholeHeads('expandK', m.expandK, m.numHeads, hiddenSize),
    ...wholeHeads('expandV', m.expandV, m.numHeads, hiddenSize),
  ],
  softmax_attention: (m, { hiddenSize }) => {
    const { numHeads, headDim, ropeBase } = m;
    if (headDim === undefined && numHeads && hiddenSize && hiddenSize % numHeads)
      return [...kvHeads(m), ['numHeads', `must divide hiddenSize ${hiddenSize} (or set headDim), got ${numHeads}`]];
    const width = headDim ?? (hiddenSize && numHeads ? hiddenSize / numHeads : undefined);
    const odd = ropeBase && width && width % 2;
    return [...kvHeads(m), ...(odd ? [['headDim', `must be even for rotary positions, got ${width}`] as Rule] : [])];
  },
};

function kvHeads({ numHeads, numKvHeads }: { numHeads?: number; numKvHeads?: number }): Rule[] {
  if (!numHeads || !numKvHeads || numHeads % numKvHeads === 0) return [];
  return [['numKvHeads', `must divide numHeads ${numHeads}, got ${numKvHeads}`]];
}

function wholeHeads(key: string, expand?: number, numHeads?: number, hiddenSize?: number): Rule[] {
  if (!expand || !numHeads || !hiddenSize) return [];
  const width = hiddenSize * expand;
  const rounded = Math.round(width); // 100 * 0.07 is 7.000000000000001
  if (Math.abs(width - rounded) < 1e-6 && rounded > 0 && rounded % numHeads === 0) return [];
  return [
    [key, `numHeads ${numHeads} must divide hiddenSize ${hiddenSize} times ${key} ${quote(expand)}, which is ${width}`],
  ];
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

function parseMixer(
  options: Record<string, unknown>,
  { chunkSize, hiddenSize }: z.output<typeof modelConfigSchema>,
): MixerConfig {
  const mixer = mixerSchemas[options.type as MixerType].parse(options);
  const numKvHeads = mixer.numKvHeads ?? mixer.numHeads;
  if (mixer.type === 'gla') return { ...mixer, numKvHeads, chunkSize: mixer.chunkSize ?? chunkSize };
  return { ...mixer, numKvHeads, headDim: mixer.headDim ?? hiddenSize / mixer.numHeads };
}

/** As the published models round it: 2/3 of hiddenRatio hiddenSize, up to a multiple of 256. */
function intermediateSize({ hiddenSize, mlp }: z.output<typeof modelConfigSchema>): number {
  return mlp.intermediateSize ?? 256 * Math.ceil(Math.trunc((hiddenSize * mlp.hiddenRatio * 2) / 3) / 256);
}
