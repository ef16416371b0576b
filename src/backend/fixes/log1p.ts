import * as tf from '@tensorflow/tfjs';
import { WasmContext } from '../../chunked/wasm/runtime.js';
import { type Fix, replaceKernel, stockKernel } from './replaceKernel.js';

export const log1p: Fix = {
  name: 'log1p on wasm',
  defect: 'computed as log(1 + x): log1p(1e-8) is 0, log1p(1e-4) is off by 1 in 10000',
  backend: 'wasm',
  install: () => replaceKernel(tf.Log1p, 'wasm', () => kernelFunc),
  installed: () => stockKernel(tf.Log1p, 'wasm') !== undefined,
};

const kernelFunc: tf.KernelFunc = ({ inputs, backend }) => {
  const ctx = WasmContext.of(backend);
  const { x } = inputs as Record<'x', tf.TensorInfo>;
  if (x.dtype !== 'float32')
    throw new TypeError(`log1p: x must be float32 on wasm, got ${x.dtype}; use tf.cast(x, 'float32')`);
  const y = ctx.out(x.shape);
  ctx.kernels.fixLog1p(ctx.ptr(x), ctx.ptr(y), tf.util.sizeFromShape(x.shape));
  return y;
};
