/** Sequences of a call as the chunked kernels take them: a table of offsets in scratch memory. */
import type * as tf from '@tensorflow/tfjs';
import type { WasmContext } from './runtime.js';

/** First token of every sequence of x [B, T, ...], counted through the batch, and the end of the last. */
export function offsetsOf(x: tf.TensorInfo, cuSeqlens?: Int32Array): number[] {
  const [B, T] = x.shape;
  return cuSeqlens ? Array.from(cuSeqlens) : Array.from({ length: B + 1 }, (_, b) => b * T);
}

/** Tokens of each sequence. */
export function lengthsOf(offsets: number[]): number[] {
  return offsets.slice(1).map((end, n) => end - offsets[n]);
}

/** Scratch for a kernel, with the table of offsets before it. */
export function withOffsets(
  ctx: WasmContext,
  offsets: number[],
  bytes: number,
  body: (table: number, scratch: number) => void,
): void {
  const tableBytes = (offsets.length * 4 + 15) & ~15;
  ctx.scratch(tableBytes + bytes, (table) => {
    ctx.writeInts(table, offsets);
    body(table, table + tableBytes);
  });
}
