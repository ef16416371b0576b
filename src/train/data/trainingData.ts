/** The data of a run: what it trains on, what it is scored on, and how to know both again. Node only. */
import { createHash } from 'node:crypto';
import type { RunConfig } from '../../config/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { AnyBatch, BatchReader } from './batch.js';
import { type DataConfig, type Dataset, loadDataset, type TokenStream } from './dataset.js';
import { DataError } from './errors.js';
import {
  type Examples,
  isLabelled,
  LabelledReader,
  type LabelledSource,
  loadExamples,
  modelFaults,
} from './labelled/index.js';
import { SequenceReader } from './reader.js';
import { createTask, isTask, TaskReader, type TaskSource } from './tasks/index.js';

/** Held-out text, or held-out examples. */
export interface ValidationData {
  /** Batches from the start of the part, the same at every call; all of them without `limit`. */
  batches(limit?: number): Iterable<AnyBatch>;
  /** UTF-8 bytes of the text; absent where there is none. */
  bytes?: () => Uint8Array;
  /** UTF-8 bytes of text per token; undefined where there is none. */
  bytesPerToken: number | undefined;
}

export interface TrainingData {
  /** A reader of the training part that stands at its start. */
  trainingReader(): BatchReader<AnyBatch>;
  /** UTF-8 bytes of text per token of the training part; undefined for tasks. */
  bytesPerToken: number | undefined;
  /** Absent when `data.valFraction` is 0. */
  validation: ValidationData | undefined;
  /** The examples of the test, of labelled sequences that have some. */
  test?: ValidationData;
  /** The examples for training as they come, of labelled sequences that have an end. */
  train?: ValidationData;
  /** One line that says what there is. */
  summary: string;
  /** Hash over the tokens and boundaries of both parts: the same text tokenized and split in the same way. Of a task, over its settings. */
  fingerprint: string;
}

/**
 * Reads, tokenizes and splits the data of a run.
 * @throws DataError when it is missing, empty, malformed, or a part is shorter than a sequence; RangeError for a token outside the
 *   model's vocabulary
 * @param tokenizer undefined for data that are no tokens of a text
 */
export async function loadTrainingData(
  { data, model, train, seed }: Pick<RunConfig, 'data' | 'model' | 'train' | 'seed'>,
  tokenizer: Tokenizer | undefined,
): Promise<TrainingData> {
  const { batchSize, seqLen } = train;
  if (isLabelled(data.source)) return labelledData(data.source, { data, model, train, seed });
  if (isTask(data.source)) return taskData(data.source, { batchSize, seqLen, seed });
  if (!tokenizer) throw new Error('data: a text needs a tokenizer');
  const dataset = await loadDataset(data as DataConfig, tokenizer, { vocabSize: model.vocabSize as number });
  const trainingReader = () => new SequenceReader(dataset.train, { batchSize, seqLen, mode: 'random', seed });
  trainingReader(); // so that data that are too short are refused now
  return {
    trainingReader,
    bytesPerToken: dataset.train.bytesPerToken,
    validation: dataset.validation && validationData(dataset.validation, tokenizer, { batchSize, seqLen }),
    summary: summarize(dataset, tokenizer),
    fingerprint: fingerprint([dataset.train, dataset.validation]),
  };
}

async function labelledData(
  source: LabelledSource,
  config: Pick<RunConfig, 'data' | 'model' | 'train' | 'seed'>,
): Promise<TrainingData> {
  const { kind, train, validation, test, summary, identity } = await loadExamples(source, config);
  for (const [key, fault] of modelFaults(config.model, kind)) throw new DataError(`data: model.${key} ${fault}`);
  const options = { batchSize: config.train.batchSize, channels: kind.channels };
  const held = (examples: Examples): ValidationData => {
    const reader = new LabelledReader(examples, options);
    return { batches: (limit) => reader.pass(limit), bytesPerToken: undefined };
  };
  const hash = createHash('sha256');
  for (const part of identity)
    hash.update(typeof part === 'string' ? part : new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  return {
    trainingReader: () => new LabelledReader(train, { ...options, seed: `order of examples ${config.seed}` }),
    bytesPerToken: undefined,
    validation: validation && held(validation),
    ...(test && { test: held(test) }),
    ...(Number.isFinite(train.size) && { train: held(train) }),
    summary,
    fingerprint: hash.digest('hex'),
  };
}

/** Fresh examples without end; those held out are of a seed of their own, the same for every run. */
function taskData(source: TaskSource, options: { batchSize: number; seqLen: number; seed: number }): TrainingData {
  const { valExamples, valSeqLen = options.seqLen } = source;
  const held = { batchSize: options.batchSize, seqLen: valSeqLen, seed: 'held-out examples' };
  const reader = new TaskReader(createTask(source, 'validation'), held);
  return {
    trainingReader: () => new TaskReader(createTask(source), { ...options, seed: `training examples ${options.seed}` }),
    bytesPerToken: undefined,
    validation: { batches: (limit) => reader.pass(valExamples, limit), bytesPerToken: undefined },
    summary: `fresh examples of ${JSON.stringify(source)}`,
    fingerprint: createHash('sha256').update(JSON.stringify(source)).digest('hex'),
  };
}

/** Batches and bytes of a stream to be scored. @throws DataError when it is shorter than a sequence */
export function validationData(
  stream: TokenStream,
  tokenizer: Tokenizer,
  options: { batchSize: number; seqLen: number },
): ValidationData {
  const reader = new SequenceReader(stream, { ...options, mode: 'sequential' });
  const { tokens, bytesPerToken } = stream;
  return {
    batches: (limit) => reader.pass(limit),
    bytes: () =>
      tokens instanceof Uint8Array && tokenizer.id === 'bytes'
        ? tokens
        : new TextEncoder().encode(tokenizer.decode(tokens)),
    bytesPerToken,
  };
}

function summarize({ train, validation, numDocuments }: Dataset, { id }: Tokenizer): string {
  const n = (x: number) => x.toLocaleString('en');
  const many = numDocuments === 1 ? '' : 's';
  const documents = `${n(numDocuments)} ${train.starts ? `document${many}` : `text${many}${many && ' joined'}`}`;
  const held = validation ? `, ${n(validation.tokens.length)} for validation` : ', none for validation';
  return `${documents}, tokenizer ${id}, ${n(train.tokens.length)} tokens for training${held}`;
}

function fingerprint(streams: (TokenStream | undefined)[]): string {
  const hash = createHash('sha256');
  for (const stream of streams)
    for (const part of [stream?.tokens, stream?.starts]) {
      hash.update(`${part?.length ?? 'none'};`);
      if (part) hash.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
    }
  return hash.digest('hex');
}
