import * as tf from '@tensorflow/tfjs';
import type { BackendWasm } from '@tensorflow/tfjs-backend-wasm';
import { type Fix, replaceKernel, stockKernel } from './replaceKernel.js';

/** A clone shares its memory with the original, counted by reference, as on the other backends. */
export const identity: Fix = {
  name: 'Identity on wasm',
  defect: 'copies: every tensor that an op saves for its gradient is copied whole at each call',
  backend: 'wasm',
  install: () => replaceKernel(tf.Identity, 'wasm', share),
  installed: () => stockKernel(tf.Identity, 'wasm') !== undefined,
};

const share =
  (stock: tf.KernelFunc | undefined): tf.KernelFunc =>
  (args) => {
    const { dataId, shape, dtype } = args.inputs.x as tf.TensorInfo;
    if (dtype === 'string') return (stock as tf.KernelFunc)(args);
    (args.backend as BackendWasm).incRef(dataId);
    return { dataId, shape, dtype };
  };
