/** Evaluation: mean nats per token over held-out text, and what that means in bits per byte. */
import { gzipSync } from 'node:zlib';
import type { CausalLM } from '../models/index.js';
import type { Batch } from './data/index.js';
import { batchLoss } from './step.js';

export interface Evaluation {
  /** Mean nats per token scored. */
  loss: number;
  /** Bits per byte of the text that the tokens stand for. */
  bpb: number;
  /** Tokens scored: all but the first of each text, which nothing predicts. */
  tokens: number;
}

/** Nats per token to bits per byte. */
export function bitsPerByte(nats: number, bytesPerToken: number): number {
  return nats / Math.LN2 / bytesPerToken;
}

/**
 * Mean loss over the given batches, each target counted once and the same, summed in float64.
 * Each sequence starts without memory, as in training.
 * @param bytesPerToken bytes of text per token, 1 for the byte tokenizer
 * @param signal stops between batches and throws the signal's reason
 * @throws RangeError when there is nothing to score
 */
export async function evaluate(
  model: CausalLM,
  batches: Iterable<Batch>,
  bytesPerToken: number,
  signal?: AbortSignal,
): Promise<Evaluation> {
  let [nats, tokens] = [0, 0];
  for (const batch of batches) {
    signal?.throwIfAborted();
    const loss = batchLoss(model, batch);
    nats += (await loss.data())[0] * batch.numTargets;
    tokens += batch.numTargets;
    loss.dispose();
    await new Promise((resolve) => setImmediate(resolve)); // lets Ctrl-C through
  }
  if (tokens === 0)
    throw new RangeError('evaluate: there is no token to score; give more validation text or a shorter train.seqLen');
  const loss = nats / tokens;
  return { loss, bpb: bitsPerByte(loss, bytesPerToken), tokens };
}

/** Bits per byte that `gzip -9` needs for the same bytes. */
export function gzipBitsPerByte(bytes: Uint8Array): number {
  return (gzipSync(bytes, { level: 9 }).length * 8) / bytes.length;
}
