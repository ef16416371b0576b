/** Settings of the generated tasks, as `data.source` of a run config. No Node, no TensorFlow.js. */
import * as z from 'zod';

const count = () => z.int().positive();

/** Of every task. */
const held = {
  valExamples: count().default(256).describe('held-out examples, of a stream of their own'),
  valSeqLen: count().optional().describe('tokens of a held-out example; default train.seqLen'),
};

const pairs = () => z.union([count(), z.array(count()).min(1)]);

export const mqarSchema = z.strictObject({
  type: z.literal('mqar'),
  vocabSize: count().min(4).default(8192).describe('token ids: the lower half are keys, the upper half values'),
  numPairs: pairs().default(16).describe('key-value pairs of an example; of several numbers each example draws one'),
  valNumPairs: pairs().optional().describe('the same of held-out examples; default numPairs'),
  keyTokens: count().default(1).describe('tokens of a key: keys that share some are alike'),
  keyIds: count().optional().describe('different tokens that keys are made of; default all of the lower half but 0'),
  repeats: z
    .number()
    .min(1)
    .default(1)
    .describe("times a pair is written, on average: each once, the rest by Zipf's law, in random order"),
  power: z
    .number()
    .positive()
    .default(0.01)
    .describe('distances of queries have probabilities in proportion to d^(power - 1): the smaller, the nearer'),
  randomFiller: z.boolean().default(true).describe('random tokens between queries; false: token 0'),
  ...held,
});

export const paritySchema = z.strictObject({ type: z.literal('parity'), ...held });

export const s3Schema = z.strictObject({
  type: z.literal('s3'),
  elements: z
    .enum(['all', 'swaps'])
    .default('all')
    .describe('what is composed: all six permutations of three things, or only the three that swap two of them'),
  ...held,
});

/** What `data.source` may say for a generated task. */
export const taskSchemas = [mqarSchema, paritySchema, s3Schema] as const;

export type MqarSource = z.output<typeof mqarSchema>;
export type TaskSource = MqarSource | z.output<typeof paritySchema> | z.output<typeof s3Schema>;

/** The type is enough: true also for a config that is partly wrong. */
export const isTask = <S extends { type?: string }>(source: S): source is Extract<S, { type?: TaskSource['type'] }> =>
  taskSchemas.some((schema) => schema.shape.type.value === source.type);
