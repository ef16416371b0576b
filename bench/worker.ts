/** The process of one contestant: prepares one task of a suite, then times it once for every request. */
import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';
import { libraryName } from '../src/backend/native.js';
import { installedBuild, installedNative } from '../src/chunked/wasm/runtime.js';
import { useBackend } from '../src/index.js';
import type { Answer, Params, Run } from './harness.js';
import { suites } from './suites.js';

type Request = { kind: 'prepare'; suite: string; task: string; params: Params } | { kind: 'time' };

let run: Run | undefined;

async function answer(request: Request): Promise<Omit<Answer, 'error'>> {
  if (request.kind === 'prepare') {
    const task = suites[request.suite].tasks[request.task];
    if (task.setup === 'ours') await useBackend('wasm');
    if (task.setup === 'stock') await tf.setBackend('wasm');
    run = await task.prepare(request.params);
    const native = task.setup === 'ours' ? installedNative() : undefined;
    return {
      ms: 0,
      build: task.setup === 'ours' ? installedBuild() : undefined,
      native: native && libraryName(native),
    };
  }
  if (!run) throw new Error('bench worker: asked to time before it was prepared');
  const start = performance.now();
  const value = await run();
  const ms = performance.now() - start;
  return { ms, value, memoryBytes: 1024 * process.resourceUsage().maxRSS };
}

process.on('message', (request: Request) => {
  answer(request).then(
    (result) => process.send?.(result),
    (error: Error) => process.send?.({ ms: 0, error: error.message }),
  );
});
