/** Evaluation: figures over held-out data. */
import { gzipSync } from 'node:zlib';
import type { TrainableModel } from '../models/index.js';
import type { AnyBatch } from './data/index.js';
import { type Evaluation, objectiveOf, type Score } from './objectives/index.js';
import type { WorkerPool } from './parallel/index.js';

export { bitsPerByte } from './objectives/nextTokens.js';
export type { Evaluation };

export interface EvaluateOptions {
  /** Stops between batches and throws the signal's reason. */
  signal?: AbortSignal;
  /** Scores a batch on each of its workers at a time; its model must be the one given. The result is the same to the last bit. */
  pool?: Pick<WorkerPool, 'size' | 'scores'>;
}

/**
 * Mean loss and other figures over the given batches, each target counted once and the same, summed in float64.
 * Each sequence starts without memory, as in training.
 * @param bytesPerToken bytes of text per token, 1 for the byte tokenizer; undefined where tokens stand for no text
 * @throws RangeError when there is nothing to score
 */
export async function evaluate(
  model: TrainableModel,
  batches: Iterable<AnyBatch>,
  bytesPerToken: number | undefined,
  { signal, pool }: EvaluateOptions = {},
): Promise<Evaluation> {
  const withHits = bytesPerToken === undefined;
  const tally = objectiveOf(model).tally(bytesPerToken);
  for (const group of groupsOf(batches, pool?.size ?? 1)) {
    signal?.throwIfAborted();
    const scores = pool ? await pool.scores(group, withHits) : [await scoreOf(model, group[0], withHits)];
    for (const [i, batch] of group.entries()) tally.add(batch, scores[i]);
    await new Promise((resolve) => setImmediate(resolve)); // lets Ctrl-C through
  }
  return tally.result();
}

/** @param withHits count the targets that were the likeliest token too */
export const scoreOf = (model: TrainableModel, batch: AnyBatch, withHits: boolean): Promise<Score> =>
  objectiveOf(model).score(model, batch, withHits);

/** One line for people. */
export function describeEvaluation({ loss, bpb, accuracy, rmse, r2, tokens, sequences }: Evaluation): string {
  const unit = rmse !== undefined ? 'mean squared error' : sequences === undefined ? 'nats/token' : 'nats/sequence';
  const others = [
    bpb && `${bpb.toFixed(3)} bits/byte`,
    accuracy !== undefined && `accuracy ${accuracy.toFixed(4)}`,
    rmse !== undefined && `rmse ${rmse.toPrecision(4)}`,
    r2 !== undefined && `R2 ${r2.toFixed(4)}`,
  ];
  const over =
    sequences === undefined ? `${tokens?.toLocaleString('en')} tokens` : `${sequences.toLocaleString('en')} sequences`;
  return `${[`${loss.toFixed(4)} ${unit}`, ...others].filter(Boolean).join(', ')} over ${over}`;
}

/** `size` at a time; the last group may be smaller. */
function* groupsOf<T>(items: Iterable<T>, size: number): Generator<T[]> {
  let group: T[] = [];
  for (const item of items) {
    group.push(item);
    if (group.length < size) continue;
    yield group;
    group = [];
  }
  if (group.length) yield group;
}

/** Bits per byte that `gzip -9` needs for the same bytes. */
export function gzipBitsPerByte(bytes: Uint8Array): number {
  return (gzipSync(bytes, { level: 9 }).length * 8) / bytes.length;
}
