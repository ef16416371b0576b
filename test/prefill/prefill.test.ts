/** A prompt read on several cores gives the bits of one core; the threads are of the build. */
import type { Worker } from 'node:worker_threads';
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { wasmBytes } from '../../src/chunked/wasm/runtime.js';
import { useBackend } from '../../src/index.js';
import { CausalLM, generate, type ModelConfigInput, type Prefill, Session } from '../../src/models/index.js';
import { PrefillPool } from '../../src/prefill/index.js';
import { lively, smallConfigs, tokenIds } from '../models/support.js';

const open: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of open.splice(0)) await close();
});

function modelOf(config: ModelConfigInput): CausalLM {
  const model = new CausalLM({ ...config, ...lively, numLayers: 4 }, { seed: 5 });
  open.push(() => model.dispose());
  return model;
}

async function poolOf(model: CausalLM, workers: number): Promise<PrefillPool> {
  const pool = await PrefillPool.start(model, { workers });
  open.push(() => pool.close());
  return pool;
}

/** Reads all but the last piece here. */
function readAlone(session: Session, chunk: number): void {
  while (session.unread.length > chunk) session.read(chunk).dispose();
}

/** Everything a session holds, to the last bit, after some prompts one after another. */
async function bytesAfter(model: CausalLM, prompts: Int32Array[], read: (session: Session) => Promise<void> | void) {
  const session = new Session(model);
  for (const prompt of prompts) {
    session.append(prompt);
    await read(session);
  }
  const bytes = await session.toBytes();
  session.dispose();
  return bytes;
}

const settings = Object.entries(smallConfigs).map(([name, config], i) => ({ name, config, workers: 2 + (i % 2) }));

test.each(settings)(
  '$name, $workers workers: states and what is unread are those of one core',
  async ({ config, workers }) => {
    const model = modelOf(config);
    const pool = await poolOf(model, workers);
    const lengths = fc.array(fc.integer({ min: 1, max: 70 }), { minLength: 1, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(lengths, fc.integer({ min: 1, max: 20 }), async (lengths, chunk) => {
        const prompts = lengths.map((n, i) => tokenIds(n + i, n));
        const alone = await bytesAfter(model, prompts, (session) => readAlone(session, chunk));
        expect(await bytesAfter(model, prompts, (session) => pool.read(session, chunk))).toEqual(alone);
      }),
      { numRuns: 5 },
    );
  },
);

test.each([
  { what: 'with every core a layer', workers: 4, use: () => useBackend('wasm') },
  { what: 'in another arithmetic', workers: 2, use: () => useBackend('wasm', { relaxedSimd: 'off', native: 'off' }) },
  { what: 'on the cpu backend', workers: 2, use: () => useBackend('cpu') },
])('the same $what', async ({ workers, use }) => {
  await use();
  const [model, prompts] = [modelOf(smallConfigs['gla and softmax attention']), [tokenIds(1, 50)]];
  open.push(() => useBackend('wasm')); // after the model, which lives on the backend it was made on
  const pool = await poolOf(model, workers);
  const alone = await bytesAfter(model, prompts, (session) => readAlone(session, 8));
  expect(await bytesAfter(model, prompts, (session) => pool.read(session, 8))).toEqual(alone);
});

describe('generate', () => {
  async function collect(model: CausalLM, length: number, prefill?: Prefill): Promise<number[]> {
    const tokens: number[] = [];
    const options = { maxTokens: 12, prefillChunk: 10, seed: 3, prefill };
    for await (const { token } of generate(model, tokenIds(9, length), options)) tokens.push(token);
    return tokens;
  }

  test('draws the same tokens after a long prompt', async () => {
    const model = modelOf(smallConfigs.gla);
    expect(await collect(model, 95, await poolOf(model, 2))).toEqual(await collect(model, 95));
  });

  test('reads a prompt of three pieces on one core, and one of more on all', async () => {
    const model = modelOf(smallConfigs.gla);
    const asked: number[] = [];
    const prefill: Prefill = { read: async ({ unread }) => void asked.push(unread.length) };
    expect(await collect(model, 30, prefill)).toEqual(await collect(model, 30));
    expect(asked).toEqual([]);
    await collect(model, 31, prefill);
    expect(asked).toEqual([31]);
  });
});

test('a reading broken off leaves the session after the pieces read, and can go on', async () => {
  const model = modelOf(smallConfigs['gla and softmax attention']);
  const pool = await poolOf(model, 2);
  const prompt = tokenIds(4, 64);
  for (const pieces of [0, 1, 5]) {
    const session = new Session(model);
    session.append(prompt);
    let turns = 0;
    const turn = async () => {
      if (turns++ === pieces) throw new Error('enough');
    };
    await expect(pool.read(session, 8, turn)).rejects.toThrow('enough');
    expect([session.position, session.unread.length]).toEqual([8 * pieces, 64 - 8 * pieces]);
    await pool.read(session, 8);
    expect(await session.toBytes()).toEqual(await bytesAfter(model, [prompt], (alone) => readAlone(alone, 8)));
    session.dispose();
  }
});

test('a thread that ends leaves the session as it was, and no tensors', async () => {
  const model = modelOf(smallConfigs.gla);
  const workers: Worker[] = [];
  const onWorker = (worker: Worker) => workers.push(worker);
  process.on('worker', onWorker);
  const pool = await poolOf(model, 3);
  process.off('worker', onWorker);
  const session = new Session(model);
  session.append(tokenIds(6, 40));
  readAlone(session, 8);
  session.append(tokenIds(7, 400));
  const [before, tensors] = [await session.toBytes(), tf.memory().numTensors];
  let turns = 0;
  const turn = async () => {
    if (turns++ === 5) await workers[1].terminate();
  };
  const failure = 'worker 2 of 3 (layers 2 to 3) ended with exit code 1';
  await expect(pool.read(session, 8, turn)).rejects.toThrow(failure);
  expect([await session.toBytes(), tf.memory().numTensors]).toEqual([before, tensors]);
  await expect(pool.read(session, 8)).rejects.toThrow(failure); // later ones are refused at once
  expect([await session.toBytes(), tf.memory().numTensors]).toEqual([before, tensors]);
  readAlone(session, 8); // one core can go on
  session.dispose();
});

test('thirty prompts hold no more than the second, in any thread', async () => {
  const model = modelOf(smallConfigs['gla and softmax attention']);
  const pool = await poolOf(model, 3);
  const held = async () => [tf.memory().numTensors, wasmBytes(), ...(await pool.numTensors())];
  let before: unknown;
  for (let i = 1; i <= 30; i++) {
    await bytesAfter(model, [tokenIds(i, 40), tokenIds(i, 50)], (session) => pool.read(session, 8));
    if (i === 2) before = await held();
  }
  expect(await held()).toEqual(before);
});

test('what cannot be shared out is refused', async () => {
  const model = modelOf(smallConfigs.gla);
  for (const workers of [1, 5, 2.5])
    await expect(PrefillPool.start(model, { workers })).rejects.toThrow(
      `PrefillPool: workers must be a whole number from 2 to 4, the layers of the model, got ${workers}`,
    );
  const pool = await poolOf(model, 2);
  const other = new Session(modelOf(smallConfigs.gla));
  await expect(pool.read(other, 8)).rejects.toThrow('PrefillPool.read: the session is of another model');
});
