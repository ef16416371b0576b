/** Choose and prepare the TensorFlow.js backend. */
import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';
import { installKernels } from '../chunked/wasm/runtime.js';

export async function useBackend(name: 'wasm' | 'cpu' = 'wasm'): Promise<void> {
  await tf.setBackend(name);
  if (name === 'wasm') await installKernels('plain');
}
