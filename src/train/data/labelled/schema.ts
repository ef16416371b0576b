/** Settings of the sets of labelled sequences, as `data.source` of a run config. No Node, no TensorFlow.js. */
import * as z from 'zod';

const count = () => z.int().positive();
const share = (fallback: number) => z.number().min(0).lt(1).default(fallback);

/** Of sets whose examples are generated. */
const generated = {
  valExamples: count().default(1000).describe('examples for validation, of a stream of their own'),
  testExamples: count().default(1000).describe('examples for the test, of a stream of their own'),
};

export const sequentialMnistSchema = z.strictObject({
  type: z.literal('sequential-mnist'),
  size: z
    .union([z.literal(28), z.literal(14), z.literal(7)])
    .default(28)
    .describe('pixels on a side; below 28 the mean of squares of pixels'),
  permuted: z.boolean().default(false).describe('pixels in a fixed random order (psMNIST), the same in every run'),
  normalize: z.boolean().default(true).describe('shift and scale pixels to mean 0 and standard deviation 1'),
  testFraction: share(0.1).describe('share of the digits kept for the test; data.valFraction is that for validation'),
});

export const listopsSchema = z.strictObject({
  type: z.literal('listops'),
  minLength: count().default(500).describe('least tokens of an expression'),
  maxLength: count().default(2000).describe('most tokens of an expression'),
  maxDepth: count().min(2).default(10).describe('most levels, that of the digits included'),
  maxArgs: count().min(2).default(10).describe('most arguments of an operator; it has 2 at least'),
  ...generated,
});

export const sinusoidsSchema = z.strictObject({
  type: z.literal('sinusoids'),
  length: count().min(2).default(256).describe('samples of a sequence'),
  minFrequency: z.number().nonnegative().default(1).describe('cycles in a sequence'),
  maxFrequency: z.number().positive().default(40).describe('cycles in a sequence; its target is 1'),
  minAmplitude: z.number().nonnegative().default(0.5),
  maxAmplitude: z.number().positive().default(1.5),
  noise: z.number().nonnegative().default(0).describe('standard deviation of what is added to each sample'),
  jitter: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe('samples at irregular times: each interval is uniform within this share of 1, and given to the model'),
  testMinFrequency: z.number().nonnegative().optional().describe('the same for the test; default minFrequency'),
  testMaxFrequency: z.number().positive().optional().describe('the same for the test; default maxFrequency'),
  ...generated,
});

const files = () => z.array(z.string().min(1)).min(1);

export const sequenceFilesSchema = z.strictObject({
  type: z.literal('sequences'),
  files: files().describe('.jsonl or .csv files or globs, relative to this file'),
  valFiles: files().optional().describe('files for validation; default: data.valFraction of the examples'),
  testFiles: files().optional().describe('files for the test; default: testFraction of the examples'),
  testFraction: share(0).describe('share of the examples kept for the test'),
});

/** What `data.source` may say for labelled sequences. */
export const labelledSchemas = [sequentialMnistSchema, listopsSchema, sinusoidsSchema, sequenceFilesSchema] as const;

export type SequentialMnistSource = z.output<typeof sequentialMnistSchema>;
export type ListopsSource = z.output<typeof listopsSchema>;
export type SinusoidsSource = z.output<typeof sinusoidsSchema>;
export type SequenceFilesSource = z.output<typeof sequenceFilesSchema>;
export type LabelledSource = SequentialMnistSource | ListopsSource | SinusoidsSource | SequenceFilesSource;

/** The type is enough: true also for a config that is partly wrong. */
export const isLabelled = <S extends { type?: string }>(
  source: S,
): source is Extract<S, { type?: LabelledSource['type'] }> =>
  labelledSchemas.some((schema) => schema.shape.type.value === source.type);
