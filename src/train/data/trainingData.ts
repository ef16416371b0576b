/** The data of a run: what it trains on, what it is scored on, and how to know both again. Node only. */
import { createHash } from 'node:crypto';
import type { RunConfig } from '../../config/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { type Dataset, loadDataset, type TokenStream } from './dataset.js';
import { type Batch, SequenceReader } from './reader.js';

/** Held-out text. */
export interface ValidationData {
  /** Batches from the start of the part, the same at every call; all of them without `limit`. */
  batches(limit?: number): Iterable<Batch>;
  /** UTF-8 bytes of the text. */
  bytes(): Uint8Array;
  /** UTF-8 bytes of text per token. */
  bytesPerToken: number;
}

export interface TrainingData {
  /** A reader of the training part that stands at its start. */
  trainingReader(): SequenceReader;
  /** UTF-8 bytes of text per token of the training part. */
  bytesPerToken: number;
  /** Absent when `data.valFraction` is 0. */
  validation: ValidationData | undefined;
  /** One line that says what there is. */
  summary: string;
  /** Hash over the tokens and boundaries of both parts: the same text tokenized and split in the same way. */
  fingerprint: string;
}

/**
 * Reads, tokenizes and splits the data of a run.
 * @throws DataError when it is missing, empty, malformed, or a part is shorter than a sequence; RangeError for a token outside the
 *   model's vocabulary
 */
export async function loadTrainingData(
  { data, model, train, seed }: Pick<RunConfig, 'data' | 'model' | 'train' | 'seed'>,
  tokenizer: Tokenizer,
): Promise<TrainingData> {
  const dataset = await loadDataset(data, tokenizer, { vocabSize: model.vocabSize });
  const { batchSize, seqLen } = train;
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
