/** Every test file starts on the wasm backend, with TensorFlow.js watching for kernels that leak and our outputs poisoned. */
import * as tf from '@tensorflow/tfjs';
import { beforeAll } from 'vitest';
import { WasmContext } from '../../src/chunked/wasm/runtime.js';
import { useBackend } from '../../src/index.js';

beforeAll(async () => {
  tf.env().set('IS_TEST', true);
  WasmContext.poison = true;
  await useBackend('wasm');
});
