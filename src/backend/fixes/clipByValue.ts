import * as tf from '@tensorflow/tfjs';
import type { BackendWasm } from '@tensorflow/tfjs-backend-wasm';
import { WasmContext } from '../../chunked/wasm/runtime.js';
import { type Fix, replaceKernel, stockKernel } from './replaceKernel.js';

export const clipByValue: Fix = {
  name: 'clipByValue on wasm',
  defect: 'NaN becomes the lower bound, so a diverged run looks finite; int32 is not clipped from above',
  backend: 'wasm',
  install: () => replaceKernel(tf.ClipByValue, 'wasm', () => kernelFunc),
  installed: () => stockKernel(tf.ClipByValue, 'wasm') !== undefined,
};

const kernelFunc: tf.KernelFunc = ({ inputs, backend, attrs }) => {
  const ctx = WasmContext.of(backend);
  const { x } = inputs as Record<'x', tf.TensorInfo>;
  const { clipValueMin, clipValueMax } = attrs as unknown as tf.ClipByValueAttrs;
  if (x.dtype !== 'float32') return clipInts(ctx.backend, x, clipValueMin, clipValueMax);
  const y = ctx.out(x.shape);
  ctx.kernels.fixClip(ctx.ptr(x), ctx.ptr(y), tf.util.sizeFromShape(x.shape), clipValueMin, clipValueMax);
  return y;
};

/** Rare (ids, counts), so plain JavaScript; a bound that is no integer is truncated, as on cpu. */
function clipInts(backend: BackendWasm, x: tf.TensorInfo, low: number, high: number): tf.TensorInfo {
  const y = backend.makeOutput(x.shape, x.dtype);
  const from = backend.typedArrayFromHeap(x);
  backend.typedArrayFromHeap(y).set(from.map((value: number) => Math.min(Math.max(value, low), high)));
  return y;
}
