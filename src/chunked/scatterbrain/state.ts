/** Keys and values of the past before those of a call, and what a call leaves for the next. */
import * as tf from '@tensorflow/tfjs';
import type { RotationHash, ScatterbrainState } from './inputs.js';
import type { Round } from './support.js';

/** Keys (or values) in buckets of the past, those in the window, then the new ones, along time. */
export function withPast(now: tf.Tensor, window: tf.Tensor | undefined, buckets: tf.Tensor | undefined): tf.Tensor {
  const parts = [buckets, window, now].filter((x): x is tf.Tensor => (x?.shape[1] ?? 0) > 0);
  return parts.length === 1 ? now : tf.concat(parts, 1);
}

/** The last windowSize - 1 tokens of k or v with the past before them. */
export function windowAfter(x: tf.Tensor, slots: number, windowSize: number): tf.Tensor {
  const [B, L, H, D] = x.shape as [number, number, number, number];
  const kept = Math.min(L - slots, windowSize - 1);
  return tf.slice(x, [0, L - kept, 0, 0], [B, kept, H, D]);
}

/**
 * The last bucketSize keys of every bucket, newest last.
 * @param rounds of every sequence and head
 * @param position tokens read before the call
 */
export function bucketsAfter(
  k: tf.Tensor,
  v: tf.Tensor,
  rounds: readonly (readonly Round[])[],
  { bucketSize, numBuckets = 16, rounds: count = 1 }: RotationHash,
  { position, past }: { position: number; past: number },
): Pick<ScatterbrainState, 'bucketK' | 'bucketV' | 'bucketPosition'> {
  const [B, L, H] = k.shape as [number, number, number];
  const slots = count * numBuckets * bucketSize;
  const rows = new Int32Array(B * slots * H);
  const positions = new Int32Array(B * slots * H);
  rounds.forEach((ofHead, n) => {
    const [b, h] = [Math.floor(n / H), n % H];
    ofHead.forEach(({ starts, rows: keys, times }, round) => {
      for (let bucket = 0; bucket + 1 < starts.length; bucket++) {
        const end = starts[bucket + 1];
        for (let i = 0; i < Math.min(bucketSize, end - starts[bucket]); i++) {
          const slot = (round * numBuckets + bucket + 1) * bucketSize - 1 - i;
          const at = (b * slots + slot) * H + h;
          rows[at] = (b * L + keys[end - 1 - i]) * H + h;
          positions[at] = times[end - 1 - i] - past + position + 1;
        }
      }
    });
  });
  const filled = tf.tensor2d(
    Float32Array.from(positions, (p) => (p > 0 ? 1 : 0)),
    [rows.length, 1],
  );
  const index = tf.tensor1d(rows, 'int32');
  const kept = (x: tf.Tensor) => {
    const D = x.shape[3] as number;
    return tf.mul(tf.gather(x.reshape([B * L * H, D]), index), filled).reshape([B, slots, H, D]);
  };
  return { bucketK: kept(k), bucketV: kept(v), bucketPosition: tf.tensor(positions, [B, slots, H], 'int32') };
}
