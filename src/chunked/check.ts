/** Checks at the door of every op: who, what was expected, what came. */
import type * as tf from '@tensorflow/tfjs';

/** Throws a RangeError when a given tensor has not exactly the expected shape. `null` in a shape accepts any size. */
export function checkShapes(op: string, expected: Record<string, [tf.Tensor | undefined, (number | null)[]]>): void {
  for (const [name, [tensor, shape]] of Object.entries(expected)) {
    if (!tensor) continue;
    const fits = tensor.shape.length === shape.length && shape.every((n, i) => n === null || n === tensor.shape[i]);
    if (!fits)
      throw new RangeError(
        `${op}: ${name} must have shape [${shape.map((n) => n ?? '*').join(',')}], got [${tensor.shape.join(',')}]`,
      );
  }
}

/** Throws a TypeError when a required tensor is absent. */
export function checkGiven(op: string, tensors: Record<string, tf.Tensor | undefined>): void {
  for (const [name, tensor] of Object.entries(tensors))
    if (!tensor) throw new TypeError(`${op}: ${name} is required, got ${tensor}; pass a float32 tensor`);
}

/** Throws a TypeError when a given tensor is not of the expected dtype. */
export function checkDtype(
  op: string,
  tensors: Record<string, tf.Tensor | undefined>,
  dtype: tf.DataType = 'float32',
): void {
  for (const [name, tensor] of Object.entries(tensors)) {
    if (tensor && tensor.dtype !== dtype)
      throw new TypeError(
        `${op}: ${name} must be ${dtype}, got ${tensor.dtype}; cast it with tf.cast(${name}, '${dtype}')`,
      );
  }
}

/** Throws a RangeError when `value` is not one of `allowed`. */
export function checkOneOf<T extends string>(op: string, name: string, value: T, allowed: readonly T[]): void {
  if (!allowed.includes(value))
    throw new RangeError(`${op}: ${name} must be one of ${allowed.map((a) => `'${a}'`).join(', ')}, got '${value}'`);
}

/** Throws a RangeError when `value` is not a positive integer. */
export function checkPositiveInt(op: string, name: string, value: number): void {
  if (!Number.isInteger(value) || value <= 0)
    throw new RangeError(`${op}: ${name} must be a positive integer, got ${value}`);
}

/**
 * Offsets of packed sequences: `[0, n1, n1 + n2, ..., T]`, strictly increasing; needs batch 1. Returns them, or undefined when absent.
 */
export function checkCuSeqlens(op: string, cuSeqlens: Int32Array | undefined, B: number, T: number): void {
  if (!cuSeqlens) return;
  if (B !== 1)
    throw new RangeError(`${op}: cuSeqlens needs a batch of 1 (sequences packed along time), got a batch of ${B}`);
  const good =
    cuSeqlens.length >= 2 &&
    cuSeqlens[0] === 0 &&
    cuSeqlens[cuSeqlens.length - 1] === T &&
    cuSeqlens.every((n, i) => i === 0 || n > cuSeqlens[i - 1]);
  if (!good)
    throw new RangeError(
      `${op}: cuSeqlens must rise strictly from 0 to ${T}, got [${[...cuSeqlens.slice(0, 8)].join(',')}${cuSeqlens.length > 8 ? ',...' : ''}]`,
    );
}
