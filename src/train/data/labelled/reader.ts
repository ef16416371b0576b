/** Batches of labelled sequences, at a position that can be saved and sought. */
import { Rng } from '../../../rng.js';
import type { BatchReader, LabelledBatch, ReaderPosition } from '../batch.js';
import { DataError } from '../errors.js';
import type { Example, Examples } from './examples.js';

export interface LabelledReaderOptions {
  batchSize: number;
  /** Numbers at a step; 0: tokens. */
  channels: number;
  /** Decides the order of each epoch; undefined: as they come. */
  seed?: number | string;
}

/** Every epoch has each example once, in a new random order; a list without end has one epoch. */
export class LabelledReader implements BatchReader<LabelledBatch> {
  readonly #examples: Examples;
  readonly #options: LabelledReaderOptions;
  readonly #rng: Rng | undefined;
  #epoch = 0;
  #index = 0;
  #order: { epoch: number; order: Uint32Array } | undefined;

  constructor(examples: Examples, options: LabelledReaderOptions) {
    const { batchSize, seed } = options;
    if (!Number.isSafeInteger(batchSize) || batchSize < 1)
      throw new RangeError(`LabelledReader: batchSize must be a positive integer, got ${batchSize}`);
    if (examples.size === 0) throw new DataError('data: expected at least one example, got none');
    [this.#examples, this.#options] = [examples, options];
    this.#rng = seed === undefined || !Number.isFinite(examples.size) ? undefined : new Rng(seed);
  }

  /** Where the next batch starts. */
  position(): ReaderPosition {
    return { epoch: this.#epoch, index: this.#index };
  }

  /** Goes to a position that `position` gave. @throws RangeError when it is none */
  seek({ epoch, index }: ReaderPosition): void {
    const isCount = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0;
    if (!isCount(epoch) || !isCount(index) || index > this.#examples.size)
      throw new RangeError(
        `LabelledReader: a position is { epoch, index } with integers >= 0 and index up to ${this.#examples.size}, got ${JSON.stringify({ epoch, index })}; were the data changed?`,
      );
    [this.#epoch, this.#index] = [epoch, index];
  }

  /** The next batch; it may go over the end of an epoch. */
  next(): LabelledBatch {
    const taken: Example[] = [];
    while (taken.length < this.#options.batchSize) {
      if (this.#index === this.#examples.size) [this.#epoch, this.#index] = [this.#epoch + 1, 0];
      taken.push(this.#examples.read(this.#place(this.#index++)));
    }
    return batchOf(taken, this.#options.channels);
  }

  /** All examples as they come, in batches, at most `limit` of them; does not move the position. Every call gives the same. */
  *pass(limit = Number.POSITIVE_INFINITY): Generator<LabelledBatch> {
    const { batchSize, channels } = this.#options;
    const { size } = this.#examples;
    for (let first = 0, n = 0; first < size && n < limit; first += batchSize, n++) {
      const rows = Math.min(batchSize, size - first);
      yield batchOf(
        Array.from({ length: rows }, (_, i) => this.#examples.read(first + i)),
        channels,
      );
    }
  }

  #place(index: number): number {
    if (!this.#rng) return index;
    if (this.#order?.epoch !== this.#epoch) {
      const order = this.#rng.split(`epoch ${this.#epoch}`).permutation(this.#examples.size);
      this.#order = { epoch: this.#epoch, order };
    }
    return this.#order.order[index];
  }
}

/** Examples of one kind, padded with zeros to the longest. */
export function batchOf(examples: readonly Example[], channels: number): LabelledBatch {
  const width = Math.max(1, channels);
  const lengths = Int32Array.from(examples, ({ x }) => x.length / width);
  const seqLen = lengths.reduce((a, b) => Math.max(a, b), 0);
  const inputs = new (channels ? Float32Array : Int32Array)(examples.length * seqLen * width);
  for (const [b, { x }] of examples.entries()) inputs.set(x, b * seqLen * width);
  const timed = examples.some(({ intervals }) => intervals);
  const intervals = timed ? new Float32Array(examples.length * seqLen).fill(1) : undefined;
  for (const [b, example] of examples.entries()) if (example.intervals) intervals?.set(example.intervals, b * seqLen);
  return {
    ...{ inputs, channels, labels: labelsOf(examples), batchSize: examples.length, seqLen },
    numTargets: examples.length,
    ...(lengths.some((n) => n < seqLen) && { lengths }),
    ...(intervals && { intervals }),
  };
}

function labelsOf(examples: readonly Example[]): LabelledBatch['labels'] {
  if (typeof examples[0].y === 'number') return Int32Array.from(examples, ({ y }) => y as number);
  const all = examples.map(({ y }) => y as Float32Array);
  const labels = new Float32Array(all.length * all[0].length);
  for (const [b, y] of all.entries()) labels.set(y, b * y.length);
  return labels;
}
