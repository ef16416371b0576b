/** Inputs and gradients that may be absent: kernels read a pointer of 0 as absent. */
import type * as tf from '@tensorflow/tfjs';
import type { WasmContext } from './runtime.js';

/** Byte offset of a tensor, 0 for an absent one. */
export const pointer = (ctx: WasmContext, x: tf.TensorInfo | undefined): number => (x ? ctx.ptr(x) : 0);

/** A new tensor for the gradient of `x`, undefined when the input is absent. */
export const gradientOf = (ctx: WasmContext, x: tf.TensorInfo): tf.TensorInfo | undefined =>
  ctx.ptr(x) ? ctx.out(x.shape) : undefined;
