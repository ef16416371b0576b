/** A tensor seen as a matrix whose rows lie along its last axis. */
import type * as tf from '@tensorflow/tfjs';

/** Width of the last axis of `x`. */
export function lastAxis(op: string, x: tf.Tensor): number {
  if (x.shape.length === 0) throw new RangeError(`${op}: x must have at least one axis, got a scalar`);
  return x.shape[x.shape.length - 1];
}

/** [rows, width] of a tensor. */
export function rowsAndWidth({ shape }: tf.TensorInfo): [number, number] {
  return [shape.slice(0, -1).reduce((n, size) => n * size, 1), shape[shape.length - 1]];
}
