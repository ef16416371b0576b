/** What a model is trained on at a time, and where the next comes from. */

/** Targets with this value are not to be learned: they would cross a document's end, or were counted before. */
export const IGNORE_INDEX = -100;

/** B sequences of T tokens, flattened to [B * T], and what comes after each token. */
export interface Batch {
  inputs: Int32Array;
  /** The next token at each place, or `IGNORE_INDEX`. */
  targets: Int32Array;
  /** B: the reader's batchSize, but the last batch of a sequential pass may be smaller. */
  batchSize: number;
  /** T. */
  seqLen: number;
  /** Targets that are not `IGNORE_INDEX`. */
  numTargets: number;
  /** Offsets of documents and rows over the flattened B * T, from 0 to B * T; only for streams of separate documents. */
  cuSeqlens?: Int32Array;
}

/** B sequences of up to T steps, each with one label: a class, or some numbers. */
export interface LabelledBatch {
  /** Tokens [B * T] (Int32Array), or channels [B * T * channels] (Float32Array); zeros past the end of a sequence. */
  inputs: Int32Array | Float32Array;
  /** Numbers at a step; 0: tokens. */
  channels: number;
  /** Classes [B] (Int32Array), or numbers [B * K] (Float32Array). */
  labels: Int32Array | Float32Array;
  batchSize: number;
  /** T: the longest sequence of the batch. */
  seqLen: number;
  /** B: each sequence counts the same. */
  numTargets: number;
  /** Steps of each sequence; absent where all have T. */
  lengths?: Int32Array;
  /** Time since the step before [B * T], in steps of training data; absent where all are 1. */
  intervals?: Float32Array;
}

export type AnyBatch = Batch | LabelledBatch;

export const isLabelledBatch = (batch: AnyBatch): batch is LabelledBatch => 'labels' in batch;

/** Everything needed to go on: windows or examples used of an epoch. */
export interface ReaderPosition {
  epoch: number;
  index: number;
}

/** Batches one after another, from a position that can be saved. */
export interface BatchReader<B extends AnyBatch = Batch> {
  /** Where the next batch starts. */
  position(): ReaderPosition;
  /** Goes to a position that `position` gave. @throws RangeError when it is none */
  seek(position: ReaderPosition): void;
  next(): B;
}

/** Targets that are to be learned. */
export function countTargets(targets: Int32Array): number {
  return targets.reduce((sum, target) => sum + (target === IGNORE_INDEX ? 0 : 1), 0);
}

/** Rows `begin` to `end` of a batch, in memory of their own: a view would be sent to another thread with all that it views. */
export function sliceRows<B extends AnyBatch>(batch: B, begin: number, end: number): B {
  if (begin === 0 && end === batch.batchSize) return batch;
  return (isLabelledBatch(batch) ? labelledRows(batch, begin, end) : tokenRows(batch, begin, end)) as B;
}

function tokenRows({ seqLen, cuSeqlens, ...batch }: Batch, begin: number, end: number): Batch {
  const [from, to] = [begin * seqLen, end * seqLen];
  const inputs = batch.inputs.slice(from, to);
  const targets = batch.targets.slice(from, to);
  const rows: Batch = { inputs, targets, batchSize: end - begin, seqLen, numTargets: countTargets(targets) };
  if (!cuSeqlens) return rows;
  // every row starts a document of its own, so both ends are among the offsets
  return { ...rows, cuSeqlens: cuSeqlens.filter((offset) => from <= offset && offset <= to).map((x) => x - from) };
}

function labelledRows(batch: LabelledBatch, begin: number, end: number): LabelledBatch {
  const part = <A extends Int32Array | Float32Array>(all: A): A => {
    const width = all.length / batch.batchSize;
    return all.slice(begin * width, end * width) as A;
  };
  const { lengths, intervals } = batch;
  return {
    ...{ inputs: part(batch.inputs), labels: part(batch.labels), channels: batch.channels, seqLen: batch.seqLen },
    ...{ batchSize: end - begin, numTargets: end - begin },
    ...(lengths && { lengths: part(lengths) }),
    ...(intervals && { intervals: part(intervals) }),
  };
}
