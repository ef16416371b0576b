/**
 * Every test file starts on the wasm backend, with TensorFlow.js watching for kernels that leak and our outputs poisoned. Properties draw the same
 * samples each time; SEQMIX_SEED draws others: a number, or `random`.
 */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { beforeAll } from 'vitest';
import { WasmContext } from '../../src/chunked/wasm/runtime.js';
import { useBackend } from '../../src/index.js';

const seed = process.env.SEQMIX_SEED ?? '1';
if (seed !== 'random') fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(seed) });

beforeAll(async () => {
  tf.env().set('IS_TEST', true);
  WasmContext.poison = true;
  await useBackend('wasm');
});
