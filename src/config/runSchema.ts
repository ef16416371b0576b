/** What a run config file may say: one schema, from which the types and the JSON Schema for editors follow. */
import * as z from 'zod';
import { BACKENDS } from '../backend/names.js';
import { anyModelSchemas } from '../models/anyConfig.js';
import { labelledSchemas } from '../train/data/labelled/schema.js';
import { type NpmPackage, npmSources } from '../train/data/npmSources.js';
import { taskSchemas } from '../train/data/tasks/schema.js';

const count = () => z.int().positive();
const countOrOff = () => z.int().nonnegative();
const packages = Object.keys(npmSources) as [NpmPackage, ...NpmPackage[]];
const files = () => z.array(z.string().min(1)).min(1).describe('paths or globs, relative to this file');

const backendSchema = z.strictObject({
  name: z.enum(BACKENDS).default('wasm'),
  relaxedSimd: z
    .enum(['auto', 'on', 'off'])
    .optional()
    .describe('fused multiply-add in the wasm kernels; default: environment variable SEQMIX_RELAXED_SIMD, else auto'),
  native: z
    .enum(['auto', 'on', 'off'])
    .optional()
    .describe('matrix products on wasm by the native addon; default: environment variable SEQMIX_NATIVE, else auto'),
});

const tokenizerSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('bytes') }),
  z.strictObject({
    type: z.literal('huggingface'),
    file: z.string().min(1).describe('a tokenizer.json, relative to this file'),
  }),
  z.strictObject({
    type: z.literal('ids'),
    vocabSize: count().describe('numbers from 0 to vocabSize - 1, written with spaces between'),
  }),
]);

const sourceSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text'), files: files() }),
  z.strictObject({
    type: z.literal('jsonl'),
    files: files(),
    field: z.string().min(1).optional().describe('entry that holds the text; default "text"'),
  }),
  z.strictObject({
    type: z.literal('npm'),
    package: z.enum(packages).describe('an installed package of public texts'),
  }),
  ...taskSchemas,
  ...labelledSchemas,
]);

const dataSchema = z.strictObject({
  source: sourceSchema,
  valFraction: z
    .number()
    .min(0)
    .lt(1)
    .default(0.1)
    .describe(
      'share kept for validation: of the tokens of a text, at its end, or of sequences; generated ones have valExamples',
    ),
  documents: z
    .enum(['join', 'separate'])
    .optional()
    .describe(
      'of texts. join: one text. separate: packed, with no context and no target across documents. Default: separate for JSON lines, join for files',
    ),
});

const trainSchema = z.strictObject({
  steps: count().describe('updates'),
  batchSize: count().default(8).describe('sequences per micro-batch'),
  seqLen: count().default(256).describe('tokens per sequence; labelled sequences have lengths of their own'),
  accumulate: count().default(1).describe('micro-batches per update'),
  workers: count().default(1).describe('threads that share the rows of each update, one for each core to be used'),
  workerTimeout: z
    .number()
    .nonnegative()
    .default(600)
    .describe('seconds without a sign of life from a worker (it gives one at every kernel) that end the run; 0: none'),
  lr: z
    .number()
    .positive()
    .default(1e-3)
    .describe('peak learning rate; some weights of state spaces have a lower one of their own'),
  schedule: z.enum(['cosine', 'wsd', 'constant']).default('cosine').describe('shape after the warm-up'),
  warmupSteps: countOrOff().optional().describe('steps of linear warm-up; default 1/20 of steps'),
  decaySteps: count().optional().describe('steps of the final decay of wsd; default 1/5 of steps'),
  halveAt: z
    .number()
    .gt(0)
    .lt(1)
    .optional()
    .describe(
      'share of steps after which the learning rate is half of what the schedule gives, its end too; default: never',
    ),
  minLrRatio: z.number().min(0).max(1).default(0.1).describe('final learning rate / lr; constant ignores it'),
  weightDecay: z
    .number()
    .nonnegative()
    .default(0.1)
    .describe('decoupled; matrices only, unless a layer says otherwise'),
  betas: z
    .tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
    .default([0.9, 0.95])
    .describe('decay of the first and second moment of AdamW'),
  eps: z.number().positive().default(1e-8),
  clipNorm: z.number().nonnegative().default(1).describe('largest global gradient norm; 0: no clipping'),
  recompute: z
    .boolean()
    .default(false)
    .describe(
      'run each block again in the backward pass instead of keeping what it computed: less memory, same numbers',
    ),
  logEvery: count().default(10).describe('steps between lines of progress and of metrics.jsonl'),
  evalEvery: countOrOff().default(100).describe('steps between evaluations; 0: none'),
  evalBatches: count().default(16).describe('batches of an evaluation during the run; the last one takes all'),
  saveEvery: countOrOff().default(200).describe('steps between checkpoints; 0: only at the best and at the end'),
  keepLast: count().default(2).describe('checkpoints kept beside the best one'),
  sampleEvery: countOrOff().default(0).describe('steps between samples; 0: only at the end'),
  samplePrompts: z
    .array(z.string().min(1))
    .optional()
    .describe('texts to continue; up to three at the end. Default: "The "; for a generated task none'),
  sampleTokens: count().default(200),
  sampleTemperature: z.number().nonnegative().default(0.8).describe('0 takes the likeliest token'),
  compareGzip: z.boolean().default(true).describe('print what gzip -9 makes of the validation part'),
});

/** What a run config file may say. */
export const runConfigSchema = z
  .strictObject({
    $schema: z.string().optional(),
    name: z
      .string()
      .regex(/^[A-Za-z0-9][\w.-]*$/, 'expected letters, digits, and . _ - after the first')
      .describe('name of the run'),
    seed: z.int().default(0).describe('decides start weights, order of the data, samples'),
    backend: backendSchema.prefault({}),
    model: z
      .union([z.string().min(1), ...anyModelSchemas])
      .describe('a model config, or the path of one relative to this file'),
    tokenizer: tokenizerSchema
      .optional()
      .describe('default: bytes; for a generated task, its ids; labelled sequences have none'),
    data: dataSchema,
    train: trainSchema,
    output: z
      .strictObject({
        dir: z
          .string()
          .min(1)
          .optional()
          .describe('folder of the run, relative to the working directory; default runs/<name>'),
      })
      .default({}),
  })
  .describe('A training run of seqmix');

export type RunConfigInput = z.input<typeof runConfigSchema>;
export type TrainConfig = z.output<typeof trainSchema> & { warmupSteps: number; samplePrompts: string[] };
export type TokenizerConfig = z.output<typeof tokenizerSchema>;
