/** A worker thread's own side of `Thread`. Node only. */
import { parentPort, workerData } from 'node:worker_threads';
import { beatAtKernels } from './pulse.js';
import type { Call, ThreadStart } from './thread.js';

/** What this thread was started with. It shows signs of life from now on. */
export function startOf<Data>(): ThreadStart<Data> {
  const start = workerData as ThreadStart<Data>;
  beatAtKernels(start.pulse);
  return start;
}

/** Says that the thread is ready, then answers calls of the target's methods. An error ends the thread; the main one hears of it. */
export function answerCalls(target: object): void {
  const methods = target as Record<string, (...args: unknown[]) => Promise<unknown>>;
  parentPort!.on('message', async ({ method, args }: Call) => {
    parentPort!.postMessage(await methods[method](...args));
  });
  parentPort!.postMessage('ready');
}
