/** Several workers train as one does: the main thread is of the sources, its threads of the build. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/backend/useBackend.js';
import { AdamW, NonFiniteGradientError } from '../../src/chunked/adamW/index.js';
import { resolveRunConfig } from '../../src/config/index.js';
import { CausalLM } from '../../src/models/index.js';
import { WorkerError } from '../../src/threads/index.js';
import { type Batch, SequenceReader, type TokenStream } from '../../src/train/data/index.js';
import { evaluate } from '../../src/train/evaluate.js';
import { dealRows } from '../../src/train/parallel/deal.js';
import { WorkerPool } from '../../src/train/parallel/index.js';
import { NonFiniteLossError, trainStep } from '../../src/train/step.js';
import { modelWeights, optimizerMoments } from '../../src/train/weights.js';
import { temporaryFolder, text, tinyRun, writeRun } from '../support/run.js';
import { expectClose } from '../support/tensors.js';

const folder = temporaryFolder();
writeRun(folder);
const { model: config, backend } = resolveRunConfig(tinyRun(), { folder });
const { name: backendName, ...backendOptions } = backend;
beforeAll(() => useBackend(backendName, backendOptions)); // as the threads will

const update = { learningRate: 0.01, weightDecay: 0.1, clipNorm: 1 };
const tokens = new TextEncoder().encode(text);
const joined: TokenStream = { tokens, bytesPerToken: 1 };
const starts = Uint32Array.from({ length: 60 }, (_, i) => i * i); // documents of 1, 3, 5, ... tokens
const packed: TokenStream = { ...joined, starts };

const readerOf = (stream: TokenStream, batchSize: number) =>
  new SequenceReader(stream, { batchSize, seqLen: 16, mode: 'random', seed: 1 });

const open: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0)) await close();
});

/** A model and its optimizer. */
function trainer(modelConfig: typeof config = config) {
  const model = new CausalLM(modelConfig, { seed: 7 });
  const optimizer = new AdamW();
  open.push(async () => {
    model.dispose();
    optimizer.dispose();
  });
  return { model, optimizer };
}

async function start(model: CausalLM, optimizer: AdamW, workers: number): Promise<WorkerPool> {
  const pool = await WorkerPool.start(model, optimizer, { workers, backend, adamW: {} });
  open.push(() => pool.close());
  return pool;
}

/** All numbers of a model and its optimizer. */
async function everything(model: CausalLM, optimizer: AdamW): Promise<Map<string, Float32Array>> {
  const parts = [await modelWeights(model), await optimizerMoments(optimizer)];
  return new Map(parts.flatMap((part) => [...part].map(([name, { data }]) => [name, data] as const)));
}

describe('dealing rows', () => {
  test('keeps rows, their order and their documents, evenly, in micro-batches no larger than before', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(joined, packed),
        fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 6 }),
        (stream, sizes, members) => {
          const rows = sizes.reduce((sum, n) => sum + n, 0);
          fc.pre(rows >= members);
          const batches = sizes.map((batchSize) => readerOf(stream, batchSize).next());
          const dealt = dealRows(batches, members);
          const counts = dealt.map((part) => part.reduce((sum, { batchSize }) => sum + batchSize, 0));
          expect(counts.length).toBe(members);
          expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
          expect(Math.max(...dealt.flat().map((batch) => batch.batchSize))).toBeLessThanOrEqual(Math.max(...sizes));
          expect(dealt.flat().flatMap(documentsOf)).toEqual(batches.flatMap(documentsOf));
          for (const { targets, numTargets } of dealt.flat())
            expect(numTargets).toBe(targets.filter((target) => target >= 0).length);
        },
      ),
    );
  });

  test('gives whole micro-batches where there are enough', () => {
    const reader = readerOf(joined, 2);
    const batches = [reader.next(), reader.next()];
    expect(dealRows(batches, 2)).toEqual(batches.map((batch) => [batch]));
  });

  test('refuses fewer rows than workers', () => {
    expect(() => dealRows([readerOf(joined, 2).next()], 3)).toThrow(
      'dealRows: 3 workers need at least 3 rows a step, got 2; raise train.batchSize or lower train.workers',
    );
  });
});

/** Inputs and targets of each document (packed), or of each row. */
function documentsOf({ inputs, targets, batchSize, seqLen, cuSeqlens }: Batch): number[][] {
  const cuts = cuSeqlens ?? Int32Array.from({ length: batchSize + 1 }, (_, row) => row * seqLen);
  expect([cuts[0], cuts.at(-1)]).toEqual([0, batchSize * seqLen]);
  return [...cuts.subarray(1)].map((end, i) => [...inputs.slice(cuts[i], end), ...targets.slice(cuts[i], end)]);
}

/** Sums of the same numbers in another order: a few units in the last place of float32 (6e-8) of the largest. */
const ROUNDING = 2e-6;

describe('loss, gradient and norm are those of one worker', () => {
  test.each([
    { name: 'rows', stream: joined, workers: 2, batchSize: 4, accumulate: 1 },
    { name: 'uneven rows', stream: joined, workers: 2, batchSize: 5, accumulate: 1 },
    { name: 'packed documents', stream: packed, workers: 3, batchSize: 4, accumulate: 1 },
    { name: 'accumulation', stream: packed, workers: 2, batchSize: 1, accumulate: 3 },
    { name: 'recomputed blocks', stream: packed, workers: 2, batchSize: 2, accumulate: 1, recompute: true },
  ])('$name over $workers workers', async ({ stream, workers, batchSize, accumulate, recompute }) => {
    const [{ model, optimizer }, alone] = [trainer(), trainer()];
    const pool = await start(model, optimizer, workers);
    const reader = readerOf(stream, batchSize);
    for (let step = 1; step <= 5; step++) {
      const batches = Array.from({ length: accumulate }, () => reader.next());
      const [got, want] = [
        await pool.step(batches, { ...update, recompute }),
        await trainStep(alone.model, alone.optimizer, batches, update),
      ];
      expect(Math.abs(got.loss / want.loss - 1), `loss at step ${step}`).toBeLessThan(ROUNDING);
      expect(Math.abs(got.gradNorm / want.gradNorm - 1), `norm at step ${step}`).toBeLessThan(10 * ROUNDING);
      if (step > 1) continue;
      const { m } = alone.optimizer.state(); // a tenth of the gradient, after one step
      for (const [name, mean] of optimizer.state().m) {
        const want = m.get(name)!.dataSync() as Float32Array;
        const size = want.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
        expectClose(name, mean.dataSync() as Float32Array, want, ROUNDING, size);
      }
    }
    await pool.checkEqual();
  });
});

test('a second run of the same number of workers gives the same bits, also when other threads take over', async () => {
  const results = [];
  for (const parts of [[6], [3, 3]]) {
    const { model, optimizer } = trainer();
    const reader = readerOf(packed, 4);
    for (const steps of parts) {
      const pool = await start(model, optimizer, 3);
      for (let step = 0; step < steps; step++) await pool.step([reader.next()], update);
      await pool.checkEqual();
    }
    results.push(await everything(model, optimizer));
  }
  expect(results[1]).toEqual(results[0]);
});

test('an evaluation is that of one worker to the last bit', async () => {
  const { model, optimizer } = trainer();
  const pool = await start(model, optimizer, 2);
  for (const stream of [joined, packed]) {
    const reader = new SequenceReader(stream, { batchSize: 3, seqLen: 100, mode: 'sequential' });
    const batches = [...reader.pass()];
    for (const some of [batches, batches.slice(1)])
      expect(await evaluate(model, some, 1, { pool })).toEqual(await evaluate(model, some, 1));
  }
});

describe('what is not finite in one worker stops all before any weight is touched', () => {
  const untied = { ...config, tieEmbeddings: false };

  test('a loss', async () => {
    const { model, optimizer } = trainer(untied);
    const table = model.weights.get('model.embeddings.weight')!;
    const poisoned = await table.data();
    poisoned.fill(Number.NaN, 8 * 7, 8 * 8); // the vector of token 7, which only the second row has
    table.assign(tf.tensor(poisoned, table.shape));
    const pool = await start(model, optimizer, 2);
    const batch = readerOf(joined, 2).next();
    const bad = { ...batch, inputs: batch.inputs.map((token, i) => (i === 20 ? 7 : token)) };
    await pool.step([batch], update);
    const [before, tensors] = [await everything(model, optimizer), tf.memory().numTensors];
    await expect(pool.step([bad], update)).rejects.toThrow(NonFiniteLossError);
    expect(tf.memory().numTensors).toBe(tensors);
    expect(await everything(model, optimizer)).toEqual(before);
    await pool.checkEqual();
    await pool.step([batch], update); // and all can go on
    await pool.checkEqual();
  });

  test('a gradient', async () => {
    const { model, optimizer } = trainer(untied);
    const [norm, head] = ['model.norm.weight', 'lm_head.weight'].map((name) => model.weights.get(name)!);
    tf.tidy(() => norm.assign(tf.mul(norm, 1e-24)));
    tf.tidy(() => head.assign(tf.mul(head, 1e24))); // the same logits, a gradient of the norm 1e24 times as large
    const pool = await start(model, optimizer, 2);
    const [before, tensors] = [await everything(model, optimizer), tf.memory().numTensors];
    await expect(pool.step([readerOf(joined, 2).next()], update)).rejects.toThrow(NonFiniteGradientError);
    expect(tf.memory().numTensors).toBe(tensors);
    expect(await everything(model, optimizer)).toEqual(before);
    await pool.checkEqual();
  });
});

test('weights changed in one thread alone are noticed', async () => {
  const { model, optimizer } = trainer();
  const pool = await start(model, optimizer, 2);
  await pool.checkEqual();
  const norm = model.weights.get('model.norm.weight')!;
  tf.tidy(() => norm.assign(tf.add(norm, 1e-6)));
  await expect(pool.checkEqual()).rejects.toThrow(
    new WorkerError('the weights of worker 1 of 2 are no longer those of the main thread'),
  );
});
