/** The process of one contestant: prepares one task of a suite, then times it once for every request. */
import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';
import { libraryName } from '../src/backend/native.js';
import { installedBuild, installedNative } from '../src/chunked/wasm/runtime.js';
import { useBackend } from '../src/index.js';
import type { Answer, Params } from './harness.js';
import { suites } from './suites.js';

type Request = { kind: 'prepare'; suite: string; task: string; params: Params } | { kind: 'time' };

let run: (() => void) | undefined;

async function answer(request: Request): Promise<Omit<Answer, 'error'>> {
  if (request.kind === 'prepare') {
    const task = suites[request.suite].tasks[request.task];
    if (task.setup === 'ours') await useBackend('wasm');
    else await tf.setBackend('wasm');
    run = task.prepare(request.params);
    const native = installedNative();
    return { ms: 0, build: installedBuild(), native: native && libraryName(native) };
  }
  if (!run) throw new Error('bench worker: asked to time before it was prepared');
  const start = performance.now();
  tf.tidy(run);
  return { ms: performance.now() - start };
}

process.on('message', (request: Request) => {
  answer(request).then(
    (result) => process.send?.(result),
    (error: Error) => process.send?.({ ms: 0, error: error.message }),
  );
});
