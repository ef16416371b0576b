/**
 * The thread of one replica: builds it, says so, then answers one call after another. An error ends the thread; the pool hears of it.
 * It is started by `WorkerPool` and exports nothing.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { useBackend } from '../../backend/useBackend.js';
import { AdamW } from '../../chunked/adamW/index.js';
import { CausalLM } from '../../models/index.js';
import { momentsFrom } from '../weights.js';
import { Replica } from './replica.js';
import { SharedGradients } from './sharedGradients.js';
import type { Call, WorkerStart } from './thread.js';

const { member, members, memory, backend, config, weights, adamW, moments, step } = workerData as WorkerStart;
const { name, ...options } = backend;
await useBackend(name, options);
const model = new CausalLM(config, { weights });
const optimizer = new AdamW(adamW);
optimizer.loadState(momentsFrom(moments, step));
const replica = new Replica(member, model, optimizer, new SharedGradients(model.weights, members, memory));

parentPort!.on('message', async ({ method, args }: Call) => {
  const call = replica[method] as (...args: unknown[]) => Promise<unknown>;
  parentPort!.postMessage(await call.apply(replica, args));
});
parentPort!.postMessage('ready');
