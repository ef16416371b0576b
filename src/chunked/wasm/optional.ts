/** Gradients of inputs that may be absent. */
import type * as tf from '@tensorflow/tfjs';
import type { WasmContext } from './runtime.js';

/** A new tensor for the gradient of `x`, undefined when the input is absent. */
export const gradientOf = (ctx: WasmContext, x: tf.TensorInfo | undefined): tf.TensorInfo | undefined =>
  x && ctx.out(x.shape);
