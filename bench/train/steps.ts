/** Training steps of our model: as users run it, and in plain ops on the stock wasm backend. */
import * as tf from '@tensorflow/tfjs';
import { installFixes } from '../../src/backend/fixes/index.js';
import { CausalLM } from '../../src/models/index.js';
import { AdamW, type Batch, type RunConfig, trainStep, WorkerPool } from '../../src/train/index.js';
import type { Params, Run, Task } from '../harness.js';
import { readHandover } from './handover.js';

/** One whole step a run; gives its loss. With several workers each does its share of the rows. */
export const ourSteps = (env: Record<string, string>, workers = 1): Task => ({
  setup: 'ours',
  env,
  prepare: (params) => (workers > 1 ? poolSteps(params, workers) : steps(params, (batch) => [batch])),
});

/**
 * The same model and optimizer in plain ops: no kernel of ours runs. The whole batch would not fit into the backend's memory, so its rows
 * are taken one by one and their gradients added up.
 */
export const stockSteps: Task = {
  setup: 'own',
  patienceMs: 300_000,
  async prepare(params) {
    await useStockBackend();
    return steps(params, rowsOf);
  },
};

function steps({ handover }: Params, split: (batch: Batch) => Batch[]): Run {
  const { config, weights, batches, update } = readHandover(handover);
  const model = new CausalLM(config, { weights });
  const optimizer = new AdamW();
  let step = 0;
  return async () => (await trainStep(model, optimizer, split(batches[step++ % batches.length]), update)).loss;
}

async function poolSteps({ handover }: Params, workers: number): Promise<Run> {
  const { config, weights, batches, update } = readHandover(handover);
  const backend: RunConfig['backend'] = { name: 'wasm' };
  const pool = await WorkerPool.start(new CausalLM(config, { weights }), new AdamW(), { workers, backend, adamW: {} });
  let step = 0;
  return async () => (await pool.step([batches[step++ % batches.length]], update)).loss;
}

function rowsOf({ inputs, targets, batchSize, seqLen }: Batch): Batch[] {
  const row = (x: Int32Array, i: number) => x.subarray(i * seqLen, (i + 1) * seqLen);
  return Array.from({ length: batchSize }, (_, i) => ({
    ...{ inputs: row(inputs, i), targets: row(targets, i), batchSize: 1, seqLen },
    numTargets: seqLen,
  }));
}

const STOCK = 'stock-wasm';

/**
 * The wasm backend under a name of its own, so that our ops take their plain forms on it. Added are only what a model cannot train
 * without: a right gradient of cumsum, and a kernel for the gradient of the embedding, which the backend lacks.
 */
async function useStockBackend(): Promise<void> {
  tf.registerBackend(STOCK, tf.findBackendFactory('wasm'));
  tf.copyRegisteredKernels('wasm', STOCK);
  tf.registerKernel({ kernelName: tf.UnsortedSegmentSum, backendName: STOCK, kernelFunc: segmentSum });
  await tf.setBackend(STOCK);
  installFixes(STOCK);
}

interface StockBackend {
  makeOutput(shape: number[], dtype: string): tf.TensorInfo;
  typedArrayFromHeap(x: tf.TensorInfo): Float32Array | Int32Array;
}

const segmentSum: tf.KernelFunc = ({ inputs, backend, attrs }) => {
  const { x, segmentIds } = inputs as Record<'x' | 'segmentIds', tf.TensorInfo>;
  const { numSegments } = attrs as unknown as tf.UnsortedSegmentSumAttrs;
  const stock = backend as StockBackend;
  const y = stock.makeOutput([numSegments, ...x.shape.slice(1)], 'float32');
  const [from, ids, to] = [x, segmentIds, y].map((tensor) => stock.typedArrayFromHeap(tensor));
  const width = from.length / ids.length;
  to.fill(0);
  for (let r = 0; r < ids.length; r++) for (let i = 0; i < width; i++) to[ids[r] * width + i] += from[r * width + i];
  return y;
};
