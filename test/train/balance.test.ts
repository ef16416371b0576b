/** The load of experts in training: the rule, and that it does not depend on how the rows of a step were dealt. */
import * as tf from '@tensorflow/tfjs';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/backend/useBackend.js';
import { AdamW } from '../../src/chunked/adamW/index.js';
import { resolveRunConfig } from '../../src/config/index.js';
import { CausalLM, type ModelConfig } from '../../src/models/index.js';
import { balance, expertLoad } from '../../src/train/balance.js';
import { type Batch, SequenceReader, type TokenStream } from '../../src/train/data/index.js';
import { WorkerPool } from '../../src/train/parallel/index.js';
import { meanGradients, trainStep } from '../../src/train/step.js';
import { temporaryFolder, text, tinyExperts, tinyRun, writeRun } from '../support/run.js';

const folder = temporaryFolder();
writeRun(folder);
const { model, backend } = resolveRunConfig(tinyRun({ model: tinyExperts }), { folder });
const config = model as ModelConfig;
const { name: backendName, ...backendOptions } = backend;
beforeAll(() => useBackend(backendName, backendOptions)); // as the threads will

const BIAS = 'model.layers.1.mlp.gate.e_score_correction_bias';
const update = { learningRate: 0.01, weightDecay: 0.1, clipNorm: 1 };
const tokens = new TextEncoder().encode(text);
/** Documents of 1, 3, 5, ... tokens, so that micro-batches hold unequal numbers of targets. */
const stream: TokenStream = { tokens, bytesPerToken: 1, starts: Uint32Array.from({ length: 60 }, (_, i) => i * i) };

/** The same `rows` windows in micro-batches of `batchSize`. */
function batchesOf(batchSize: number, rows = 4): Batch[] {
  const reader = new SequenceReader(stream, { batchSize, seqLen: 16, mode: 'random', seed: 1 });
  return Array.from({ length: rows / batchSize }, () => reader.next());
}

const open: { dispose(): void }[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.dispose();
});

function trainer() {
  const [model, optimizer] = [new CausalLM(config, { seed: 7 }), new AdamW()];
  open.push(model, optimizer);
  return { model, optimizer };
}

const biasOf = (model: CausalLM) => Array.from(model.weights.get(BIAS)!.dataSync());

test('a step moves every bias by the rate, up where the load is below the mean; the optimizer has none of it', async () => {
  const { model, optimizer } = trainer();
  const { grads } = await meanGradients(model, batchesOf(4));
  const surplus = Array.from(grads[BIAS].dataSync());
  expect(surplus.reduce((a, b) => a + b)).toBe(0);
  expect(surplus.some((x) => x > 0)).toBe(true);
  const rest = Object.entries(grads).filter(([name]) => name !== BIAS);
  const norm = Math.hypot(...rest.flatMap(([, x]) => Array.from(x.dataSync())));
  tf.dispose(grads);
  const before = tf.memory().numTensors;
  const result = await trainStep(model, optimizer, batchesOf(4), { ...update, clipNorm: norm / 2 });
  expect(result.gradNorm / norm).toBeCloseTo(1, 5);
  expect(biasOf(model)).toEqual(surplus.map((x) => Math.fround(0 - 0.01 * Math.sign(x))));
  expect(result.expertLoad).toBeCloseTo(1 + Math.max(...surplus) / (4 * 16 * 2), 10);
  const { m } = optimizer.state();
  expect(m.has(BIAS)).toBe(false);
  expect(m.size).toBe(model.weights.size - 1);
  expect(tf.memory().numTensors - before, 'tensors but the moments').toBe(2 * m.size);
});

describe('load and biases are those of one batch', () => {
  const whole = async () => {
    const { model, optimizer } = trainer();
    const { expertLoad } = await trainStep(model, optimizer, batchesOf(4), update);
    return { expertLoad, bias: biasOf(model) };
  };

  test.each([2, 1])('in micro-batches of %i rows', async (rows) => {
    const { model, optimizer } = trainer();
    const { expertLoad } = await trainStep(model, optimizer, batchesOf(rows), update);
    expect({ expertLoad, bias: biasOf(model) }).toEqual(await whole());
  });

  test('with recomputed blocks', async () => {
    const { model, optimizer } = trainer();
    const { expertLoad } = await trainStep(model, optimizer, batchesOf(4), { ...update, recompute: true });
    expect({ expertLoad, bias: biasOf(model) }).toEqual(await whole());
  });

  test('on 3 workers', async () => {
    const { model, optimizer } = trainer();
    const pool = await WorkerPool.start(model, optimizer, { workers: 3, backend, adamW: {} });
    try {
      const { expertLoad } = await pool.step(batchesOf(2), update);
      expect({ expertLoad, bias: biasOf(model) }).toEqual(await whole());
      await pool.step(batchesOf(1), { ...update, recompute: true });
      await pool.checkEqual();
    } finally {
      await pool.close();
    }
  });
});

test('over many steps the load becomes more even than without', async () => {
  const meanLoad = async (balanceRate: number) => {
    const mlp = { ...config.mlp, moe: { ...config.mlp.moe!, balanceRate } };
    const [model, optimizer] = [new CausalLM({ ...config, mlp }, { seed: 3 }), new AdamW()];
    open.push(model, optimizer);
    const reader = new SequenceReader(
      { tokens, bytesPerToken: 1 },
      { batchSize: 4, seqLen: 16, mode: 'random', seed: 2 },
    );
    let sum = 0;
    for (let step = 0; step < 120; step++) {
      const { expertLoad } = await trainStep(model, optimizer, [reader.next()], update);
      if (step >= 60) sum += expertLoad as number;
    }
    return sum / 60;
  };
  const [free, balanced] = [await meanLoad(0), await meanLoad(0.01)];
  expect(balanced).toBeLessThan(1.25);
  expect(free).toBeGreaterThan(balanced + 0.1);
});

test('a model without experts has no load', async () => {
  const model = new CausalLM({ ...config, mlp: { intermediateSize: 8 } });
  open.push(model);
  expect(model.balanceRates.size).toBe(0);
  expect(await balance(model, {})).toBeUndefined();
  expect(expertLoad(model, undefined, batchesOf(4))).toBeUndefined();
});
