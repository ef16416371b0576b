/** The config of every language model here: one schema, its defaults and the rules across settings. */
import * as z from 'zod';
import { ConfigError, formatPath, type Problem, schemaProblems } from '../config/problems.js';
import { lenientParse, type Path } from '../config/schemaWalk.js';
import type { TernaryEncoding } from '../formats/ternary.js';
import { type MixerConfig, mixerDefaultsSchema, mixerSchema } from './mixers/index.js';
import { count } from './mixers/mixer.js';
import { type MixersInput, mixerProblems, resolveMixers } from './mixers/perLayer.js';
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
        type: z
          .enum(['swiglu', 'bit_glu'])
          .optional()
          .describe(
            'bit_glu: ternary weights, gate and up in one matrix, as MatMul-free models have it; default swiglu',
          ),
        moe: moeSchema.optional().describe('a mixture of experts in place of the SwiGLU, in all layers but the first'),
      })
      .default({ hiddenRatio: 4 })
      .describe('channel mixer of each layer: SwiGLU, or with `moe` a mixture of experts'),
    linear: z
      .enum(['dense', 'bit'])
      .optional()
      .describe(
        'bit: projections by ternary weights, also the output projection where it is not the table; default dense',
      ),
    packed: z
      .enum(['2bit', 'base3'])
      .optional()
      .describe('set by `seqmix pack`: how the ternary weights beside this file are stored; not to be trained'),
    normEps: z.number().positive().default(1e-6),
    tieEmbeddings: z.boolean().default(true).describe('the output projection is the embedding table'),
    initializerRange: z
      .number()
      .positive()
      .default(0.02)
      .describe('standard deviation of the initial weights, but for those with a start of their own'),
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
  mlp: { hiddenRatio: number; intermediateSize: number; type?: 'swiglu' | 'bit_glu'; moe?: MoeConfig };
  /** `bit`: projections by ternary weights. */
  linear?: 'dense' | 'bit';
  /** The ternary weights are packed, in files so: the model is for inference only. */
  packed?: TernaryEncoding;
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
  return { ...rest, mixers: resolveMixers(raw as MixersInput, config), mlp: resolveMlp(config) };
}

/** Everything wrong with a model config; `at` is put before each path. */
export function modelProblems(raw: unknown, at: Path = []): Problem[] {
  const problems = schemaProblems(modelConfigSchema, raw, at);
  const config = lenientParse(modelConfigSchema, raw);
  if (!config) return problems;
  for (const [key, fault] of moeRules(config.mlp?.moe ?? {}))
    problems.push({ path: formatPath([...at, 'mlp', 'moe', key]), message: fault });
  return [...problems, ...mixerProblems((raw ?? {}) as MixersInput, config, at)];
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
