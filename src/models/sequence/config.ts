/** Configs of the models that map a whole sequence to a class or to some numbers: one schema each, their defaults and rules. */
import * as z from 'zod';
import { ConfigError, formatPath, type Problem, schemaProblems } from '../../config/problems.js';
import { lenientParse, type Path } from '../../config/schemaWalk.js';
import { modelConfigSchema } from '../config.js';
import type { MixerConfig } from '../mixers/index.js';
import { count } from '../mixers/mixer.js';
import { type MixersInput, mixerProblems, resolveMixers } from '../mixers/perLayer.js';

const encoderShape = {
  inputSize: count().optional().describe('numbers at a step; default 1, unless vocabSize says that steps are tokens'),
  vocabSize: count().optional().describe('number of token ids, where steps are tokens'),
  hiddenSize: count().default(128).describe('width of the residual stream'),
  numLayers: count().default(4),
  mixers: modelConfigSchema.shape.mixers,
  mixerDefaults: modelConfigSchema.shape.mixerDefaults,
  mlp: z
    .strictObject({ intermediateSize: count().describe('width inside') })
    .optional()
    .describe('a SwiGLU after the mixer of each layer; default: none'),
  norm: z.enum(['layer', 'batch', 'rms']).default('layer'),
  normPosition: z
    .enum(['pre', 'post'])
    .default('pre')
    .describe('norms before mixer and mlp, or after the residual sum'),
  finalNorm: z.boolean().optional().describe('one more norm after all layers; default: with norms before'),
  normEps: z.number().positive().default(1e-5),
  normMomentum: z
    .number()
    .min(0)
    .max(1)
    .default(0.95)
    .describe('share of the running statistics of batch norm that a training step keeps'),
  dropout: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe('share of the channels that training drops from what each mixer and mlp adds, the same along time'),
  pool: z
    .enum(['mean', 'last', 'first', 'sum'])
    .default('mean')
    .describe('how the steps of a sequence become one vector'),
  initializerRange: z
    .number()
    .positive()
    .optional()
    .describe('standard deviation of the initial matrices; default 1 / sqrt(inputs of each)'),
  chunkSize: modelConfigSchema.shape.chunkSize,
};

/** What the config file of a classifier may say. */
export const classifierConfigSchema = z
  .strictObject({
    $schema: z.string().optional(),
    modelType: z.literal('sequence_classifier'),
    numClasses: count().min(2),
    ...encoderShape,
  })
  .describe('A classifier of whole sequences of seqmix');

/** What the config file of a regressor may say. */
export const regressorConfigSchema = z
  .strictObject({
    $schema: z.string().optional(),
    modelType: z.literal('sequence_regressor'),
    numTargets: count().default(1).describe('numbers to be told of a sequence'),
    ...encoderShape,
  })
  .describe('A regressor on whole sequences of seqmix');

export type ClassifierConfigInput = z.input<typeof classifierConfigSchema>;
export type RegressorConfigInput = z.input<typeof regressorConfigSchema>;

/** What both kinds have in common; complete, as `ModelConfig`. */
export interface EncoderConfig {
  /** Numbers at a step; absent where steps are tokens. */
  inputSize?: number;
  /** Token ids; absent where steps are numbers. */
  vocabSize?: number;
  hiddenSize: number;
  numLayers: number;
  /** One entry per layer, with all options. */
  mixers: MixerConfig[];
  mlp?: { intermediateSize: number };
  norm: 'layer' | 'batch' | 'rms';
  normPosition: 'pre' | 'post';
  finalNorm: boolean;
  normEps: number;
  normMomentum: number;
  dropout: number;
  pool: 'mean' | 'last' | 'first' | 'sum';
  initializerRange?: number;
  chunkSize: number;
}

export interface ClassifierConfig extends EncoderConfig {
  modelType: 'sequence_classifier';
  numClasses: number;
}

export interface RegressorConfig extends EncoderConfig {
  modelType: 'sequence_regressor';
  numTargets: number;
}

export type SequenceConfig = ClassifierConfig | RegressorConfig;

const schemas = { sequence_classifier: classifierConfigSchema, sequence_regressor: regressorConfigSchema } as const;

/** Whether a config, right or wrong, is of a classifier or regressor. */
export const isSequenceConfig = (raw: unknown): raw is { modelType: SequenceConfig['modelType'] } =>
  Object.hasOwn(schemas, (raw as { modelType?: string } | null | undefined)?.modelType ?? '');

/**
 * Fills in every default and repeats the mixers up to `numLayers`.
 * @param raw what a config file says; its `modelType` says which kind it is
 * @param source where it came from, for the error
 * @throws ConfigError listing every unknown key, wrong type and combination that cannot be
 */
export function resolveSequenceConfig<C extends SequenceConfig = SequenceConfig>(
  raw: unknown,
  source = 'model config',
): C {
  const problems = sequenceProblems(raw);
  if (problems.length) throw new ConfigError(source, problems);
  const { $schema: _, mixerDefaults: _d, mixers: _m, ...rest } = schemaFor(raw).parse(raw);
  const { vocabSize, inputSize = vocabSize === undefined ? 1 : undefined, normPosition } = rest;
  const mixers = resolveMixers(raw as MixersInput, rest);
  const finalNorm = rest.finalNorm ?? normPosition === 'pre';
  return { ...rest, ...(inputSize !== undefined && { inputSize }), mixers, finalNorm } as unknown as C;
}

/** Everything wrong with the config of a classifier or regressor; `at` is put before each path. */
export function sequenceProblems(raw: unknown, at: Path = []): Problem[] {
  const schema = schemaFor(raw);
  const problems = schemaProblems(schema, raw, at);
  const config = lenientParse(schema, raw);
  if (!config) return problems;
  if (config.inputSize !== undefined && config.vocabSize !== undefined)
    problems.push({
      path: formatPath([...at, 'vocabSize']),
      message: `steps are either tokens or numbers: leave out vocabSize ${config.vocabSize} or inputSize ${config.inputSize}`,
    });
  return [...problems, ...mixerProblems((raw ?? {}) as MixersInput, config, at)];
}

/** Of a config that says no kind, the classifier's, whose problems then name `modelType`. */
const schemaFor = (raw: unknown) => schemas[isSequenceConfig(raw) ? raw.modelType : 'sequence_classifier'];
