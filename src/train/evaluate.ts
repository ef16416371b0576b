/** Evaluation: mean nats per token over held-out data; of text what that means in bits per byte, of a task how much is right. */
import { gzipSync } from 'node:zlib';
import * as tf from '@tensorflow/tfjs';
import type { CausalLM } from '../models/index.js';
import type { Batch } from './data/index.js';
import type { WorkerPool } from './parallel/index.js';
import { batchLoss, tensorsOf } from './step.js';

export interface Evaluation {
  /** Mean nats per token scored. */
  loss: number;
  /** Bits per byte of the text that the tokens stand for; absent when they stand for none. */
  bpb?: number;
  /** Share of the targets that were the likeliest token; only for generated tasks. */
  accuracy?: number;
  /** Tokens scored: all but the first of each text, which nothing predicts. Of a task those that are asked for. */
  tokens: number;
}

/** A batch scored. */
export interface Score {
  /** Mean nats per target. */
  nats: number;
  /** Targets that were the likeliest token; absent where only the loss was asked for. */
  hits?: number;
}

export interface EvaluateOptions {
  /** Stops between batches and throws the signal's reason. */
  signal?: AbortSignal;
  /** Scores a batch on each of its workers at a time; its model must be the one given. The result is the same to the last bit. */
  pool?: Pick<WorkerPool, 'size' | 'scores'>;
}

/** Nats per token to bits per byte; undefined when tokens stand for no bytes. */
export function bitsPerByte(nats: number, bytesPerToken: number): number;
export function bitsPerByte(nats: number, bytesPerToken: number | undefined): number | undefined;
export function bitsPerByte(nats: number, bytesPerToken: number | undefined): number | undefined {
  return bytesPerToken && nats / Math.LN2 / bytesPerToken;
}

/**
 * Mean loss over the given batches, each target counted once and the same, summed in float64.
 * Each sequence starts without memory, as in training.
 * @param bytesPerToken bytes of text per token, 1 for the byte tokenizer; undefined for a generated task
 * @throws RangeError when there is nothing to score
 */
export async function evaluate(
  model: CausalLM,
  batches: Iterable<Batch>,
  bytesPerToken: number | undefined,
  { signal, pool }: EvaluateOptions = {},
): Promise<Evaluation> {
  const isTask = bytesPerToken === undefined;
  let [nats, hits, tokens] = [0, 0, 0];
  for (const group of groupsOf(batches, pool?.size ?? 1)) {
    signal?.throwIfAborted();
    const scores = pool ? await pool.scores(group, isTask) : [await scoreOf(model, group[0], isTask)];
    for (const [i, { numTargets }] of group.entries()) {
      nats += scores[i].nats * numTargets;
      hits += scores[i].hits ?? 0;
      tokens += numTargets;
    }
    await new Promise((resolve) => setImmediate(resolve)); // lets Ctrl-C through
  }
  if (tokens === 0)
    throw new RangeError('evaluate: there is no token to score; give more validation text or a shorter train.seqLen');
  const loss = nats / tokens;
  return isTask ? { loss, accuracy: hits / tokens, tokens } : { loss, bpb: bitsPerByte(loss, bytesPerToken), tokens };
}

/** @param withHits count the targets that were the likeliest token too */
export async function scoreOf(model: CausalLM, batch: Batch, withHits: boolean): Promise<Score> {
  const scored: tf.Scalar[] = tf.tidy(() => {
    if (!withHits) return [batchLoss(model, batch)];
    const { inputs, targets, options } = tensorsOf(batch);
    const { loss, hits } = model.score(inputs, targets, options);
    return [loss, hits];
  });
  const [nats, hits] = await Promise.all(scored.map(async (x) => (await x.data())[0]));
  tf.dispose(scored);
  return { nats, hits };
}

/** One line for people. */
export function describeEvaluation({ loss, bpb, accuracy, tokens }: Evaluation): string {
  const others = [bpb && `${bpb.toFixed(3)} bits/byte`, accuracy !== undefined && `accuracy ${accuracy.toFixed(4)}`];
  return `${[`${loss.toFixed(4)} nats/token`, ...others].filter(Boolean).join(', ')} over ${tokens.toLocaleString('en')} tokens`;
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
