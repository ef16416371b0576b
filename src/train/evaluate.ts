/** Evaluation: mean nats per token over held-out text, and what that means in bits per byte. */
import { gzipSync } from 'node:zlib';
import type { CausalLM } from '../models/index.js';
import type { Batch } from './data/index.js';
import type { WorkerPool } from './parallel/index.js';
import { batchLoss } from './step.js';

export interface Evaluation {
  /** Mean nats per token scored. */
  loss: number;
  /** Bits per byte of the text that the tokens stand for. */
  bpb: number;
  /** Tokens scored: all but the first of each text, which nothing predicts. */
  tokens: number;
}

export interface EvaluateOptions {
  /** Stops between batches and throws the signal's reason. */
  signal?: AbortSignal;
  /** Scores a batch on each of its workers at a time; its model must be the one given. The result is the same to the last bit. */
  pool?: Pick<WorkerPool, 'size' | 'losses'>;
}

/** Nats per token to bits per byte. */
export function bitsPerByte(nats: number, bytesPerToken: number): number {
  return nats / Math.LN2 / bytesPerToken;
}

/**
 * Mean loss over the given batches, each target counted once and the same, summed in float64.
 * Each sequence starts without memory, as in training.
 * @param bytesPerToken bytes of text per token, 1 for the byte tokenizer
 * @throws RangeError when there is nothing to score
 */
export async function evaluate(
  model: CausalLM,
  batches: Iterable<Batch>,
  bytesPerToken: number,
  { signal, pool }: EvaluateOptions = {},
): Promise<Evaluation> {
  let [nats, tokens] = [0, 0];
  for (const group of groupsOf(batches, pool?.size ?? 1)) {
    signal?.throwIfAborted();
    const losses = pool ? await pool.losses(group) : [await lossOf(model, group[0])];
    for (const [i, { numTargets }] of group.entries()) {
      nats += losses[i] * numTargets;
      tokens += numTargets;
    }
    await new Promise((resolve) => setImmediate(resolve)); // lets Ctrl-C through
  }
  if (tokens === 0)
    throw new RangeError('evaluate: there is no token to score; give more validation text or a shorter train.seqLen');
  const loss = nats / tokens;
  return { loss, bpb: bitsPerByte(loss, bytesPerToken), tokens };
}

/** Mean nats per target of one batch. */
export async function lossOf(model: CausalLM, batch: Batch): Promise<number> {
  const loss = batchLoss(model, batch);
  const [nats] = await loss.data();
  loss.dispose();
  return nats;
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
