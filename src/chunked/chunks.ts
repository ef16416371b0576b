/** Tokens in chunks, for the plain chunk forms. */
import * as tf from '@tensorflow/tfjs';

/** N chunks of C tokens, each in `slots` rows: C rounded up to a power of two, because the score tree halves it. */
export interface Layout {
  B: number;
  T: number;
  H: number;
  N: number;
  C: number;
  slots: number;
}

export function layoutOf(B: number, T: number, H: number, chunkSize: number): Layout {
  const C = Math.min(chunkSize, T);
  return { B, T, H, N: Math.ceil(T / C), C, slots: 2 ** Math.ceil(Math.log2(C)) };
}

/** [B, T, H, D] -> [B * N * H, slots, D]. Rows of padding are 0: they add nothing to the state and, with gate 0, keep it. */
export function toChunks(x: tf.Tensor, { B, T, H, N, C, slots }: Layout): tf.Tensor {
  const D = x.shape[3] as number;
  const whole = pad(x, 1, [0, N * C - T]).reshape([B * N, C, H, D]);
  return pad(tf.transpose(whole, [0, 2, 1, 3]), 2, [0, slots - C]).reshape([B * N * H, slots, D]);
}

/** The inverse of `toChunks`. */
export function fromChunks(x: tf.Tensor, { B, T, H, N, C, slots }: Layout): tf.Tensor {
  const D = x.shape[2] as number;
  const rows = cutEnd(x.reshape([B * N, H, slots, D]), 2, C);
  return cutEnd(tf.transpose(rows, [0, 2, 1, 3]).reshape([B, N * C, H, D]), 1, T);
}

/** x with `before` and `after` rows of `value` along `axis`. */
export function pad(x: tf.Tensor, axis: number, [before, after]: [number, number], value = 0): tf.Tensor {
  if (before + after === 0) return x;
  const paddings = x.shape.map((_, i): [number, number] => (i === axis ? [before, after] : [0, 0]));
  return tf.pad(x, paddings, value);
}

/** The first `count` rows of x along `axis`. */
export function cutEnd(x: tf.Tensor, axis: number, count: number): tf.Tensor {
  if (x.shape[axis] === count) return x;
  const size = x.shape.map((n, i) => (i === axis ? count : n));
  return tf.slice(x, Array(size.length).fill(0), size);
}
