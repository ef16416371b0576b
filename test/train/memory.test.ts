/** A thousand steps of a very small model hold no more than fifty do, in this thread and in the others. The threads are of the build. */
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { useBackend } from '../../src/backend/useBackend.js';
import { AdamW } from '../../src/chunked/adamW/index.js';
import { wasmBytes } from '../../src/chunked/wasm/runtime.js';
import { CausalLM } from '../../src/models/index.js';
import { SequenceReader } from '../../src/train/data/index.js';
import { WorkerPool } from '../../src/train/parallel/index.js';
import { trainStep } from '../../src/train/step.js';
import { nativeAddon } from '../backend/native.js';
import { text } from '../support/run.js';

const update = { learningRate: 0.01, weightDecay: 0.1, clipNorm: 1 };
const config = {
  ...{ vocabSize: 128, hiddenSize: 8, numLayers: 1, mixers: [{ type: 'gla', numHeads: 1, expandK: 1 } as const] },
  ...{ mlp: { intermediateSize: 8 }, chunkSize: 8 },
};
const tokens = new TextEncoder().encode(text);

const modes = ([1, 2] as const).flatMap((workers) =>
  (nativeAddon ? (['off', 'on'] as const) : (['off'] as const)).map((native) => ({ workers, native })),
);

test.each(modes)('$workers workers, native $native', async ({ workers, native }) => {
  const backend = { name: 'wasm', native } as const;
  await useBackend('wasm', backend);
  const model = new CausalLM(config);
  const optimizer = new AdamW();
  const pool = workers > 1 ? await WorkerPool.start(model, optimizer, { workers, backend, adamW: {} }) : undefined;
  const reader = new SequenceReader({ tokens, bytesPerToken: 1 }, { batchSize: 1, seqLen: 8, mode: 'random', seed: 1 });
  const next = () => [reader.next(), reader.next()]; // accumulated by one worker, dealt over two
  const step = () => (pool ? pool.step(next(), update) : trainStep(model, optimizer, next(), update));
  const own = () => [{ tensors: tf.memory().numTensors, bytes: tf.memory().numBytes, wasm: wasmBytes() }];
  const held = async () => (pool ? await pool.memory() : own());
  try {
    for (let i = 0; i < 50; i++) await step();
    const before = await held();
    for (let i = 50; i < 1000; i++) await step();
    expect(before.length).toBe(workers);
    expect(await held()).toEqual(before);
  } finally {
    await pool?.close();
    model.dispose();
    optimizer.dispose();
  }
});
