/** Classifiers and regressors are trained by the same loop: rates of weights, workers, accuracy, resuming, the command line. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/backend/useBackend.js';
import { AdamW } from '../../src/chunked/adamW/index.js';
import { ConfigError, resolveRunConfig } from '../../src/config/index.js';
import { type ClassifierConfigInput, SequenceClassifier, TrainableModel } from '../../src/models/index.js';
import { Rng } from '../../src/rng.js';
import { batchOf, type Example, type LabelledBatch } from '../../src/train/data/index.js';
import { evaluate } from '../../src/train/evaluate.js';
import { train } from '../../src/train/loop.js';
import { figureOf, isBetter } from '../../src/train/objectives/index.js';
import { numbers } from '../../src/train/objectives/numbers.js';
import { dealRows } from '../../src/train/parallel/deal.js';
import { WorkerPool } from '../../src/train/parallel/index.js';
import { applyGradients, meanGradients, trainStep } from '../../src/train/step.js';
import { modelWeights, optimizerMoments } from '../../src/train/weights.js';
import { metricsOf, seqmix, signalAtStep, temporaryFolder } from '../support/run.js';
import { signs, tinyClassifier, tinySequenceRun, writeSequenceRun } from '../support/sequences.js';
import { expectClose } from '../support/tensors.js';

const backend = { name: 'wasm', relaxedSimd: 'off' } as const;
beforeAll(() => useBackend('wasm', { relaxedSimd: 'off' })); // as the threads will

const update = { learningRate: 0.01, weightDecay: 0.1, clipNorm: 1 };
const open: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

const batchesOf = (batchSize: number, rows = 8): LabelledBatch[] => {
  const examples = Array.from({ length: rows }, (_, i): Example => {
    const rng = new Rng('example').split(i);
    return { x: rng.normalArray(3 + (i % 4)), y: i % 2 };
  });
  const starts = Array.from({ length: rows / batchSize }, (_, i) => i * batchSize);
  return starts.map((start) => batchOf(examples.slice(start, start + batchSize), 1));
};

function trainer(settings: Partial<ClassifierConfigInput> = {}) {
  const model = new SequenceClassifier({ ...tinyClassifier, ...settings } as ClassifierConfigInput, { seed: 7 });
  const optimizer = new AdamW();
  open.push(
    () => model.dispose(),
    () => optimizer.dispose(),
  );
  return { model, optimizer };
}

async function everything(model: SequenceClassifier, optimizer: AdamW): Promise<Map<string, Float32Array>> {
  const parts = [await modelWeights(model), await optimizerMoments(optimizer)];
  return new Map(parts.flatMap((part) => [...part].map(([name, { data }]) => [name, data] as const)));
}

describe('rates of weights', () => {
  /** Weights of one number each, and what the rules say of them. */
  class Weights extends TrainableModel {
    constructor() {
      const one = (spec: object) => ({ shape: [1], kind: 'matrix' as const, ...spec });
      const loose = {
        plain: one({}),
        slow: one({ learningRate: 0.002 }),
        fast: one({ learningRate: 5 }),
        frozen: one({ learningRate: 0 }),
        spared: one({ decays: false }),
        bias: one({ kind: 'bias' }),
        decayed: one({ kind: 'other', decays: true }),
        running: one({ kind: 'other', runningRate: 0.25 }),
      };
      super('Weights', { layers: [], loose }, () => Float32Array.of(2));
    }
  }

  test('peaks of their own on the same schedule, freezing, decay, running statistics', async () => {
    const [model, optimizer] = [new Weights(), new AdamW()];
    open.push(
      () => model.dispose(),
      () => optimizer.dispose(),
    );
    const grads = Object.fromEntries([...model.weights.keys()].map((name) => [name, tf.tensor1d([3])]));
    const rates = { learningRate: 0.05, peakLearningRate: 0.1, weightDecay: 0.2, clipNorm: 0 };
    const { gradNorm } = await applyGradients(model, optimizer, grads, rates);
    expect(gradNorm).toBeCloseTo(3 * Math.sqrt(6), 4); // neither the frozen one nor the statistic
    const after = Object.fromEntries([...model.weights].map(([name, w]) => [name, w.dataSync()[0]]));
    const step = (lr: number, decay: number) => 2 - lr * (1 + decay * 2); // AdamW's first step is lr * sign
    expect(after.plain).toBeCloseTo(step(0.05, 0.2), 5);
    expect(after.slow).toBeCloseTo(step(0.001, 0.2), 5); // half its peak, as all are at half of theirs
    expect(after.fast).toBeCloseTo(step(0.05, 0.2), 5);
    expect(after.frozen).toBe(2);
    expect(after.spared).toBeCloseTo(step(0.05, 0), 5);
    expect(after.bias).toBeCloseTo(step(0.05, 0), 5);
    expect(after.decayed).toBeCloseTo(step(0.05, 0.2), 5);
    expect(after.running).toBeCloseTo(2 + 0.25 * (3 - 2), 6);
    expect([...optimizer.state().m.keys()]).toEqual(['plain', 'slow', 'fast', 'spared', 'bias', 'decayed']);
    tf.dispose(grads);
  });

  test('batch norm: running values move towards the statistics of the training batches, and count in evaluation', async () => {
    const { model, optimizer } = trainer({ dropout: 0 });
    const name = 'model.layers.0.attn_norm.running_mean';
    const [batch] = batchesOf(8);
    const { grads } = await meanGradients(model, [batch]);
    const statistic = Float32Array.from(grads[name].dataSync());
    tf.dispose(grads);
    await trainStep(model, optimizer, [batch], update);
    const moved = model.weights.get(name)!.dataSync();
    expect(Array.from(moved)).toEqual(Array.from(statistic, (x) => expect.closeTo(0.05 * x, 5)));
    const before = (await evaluate(model, [batch], undefined)).loss;
    model.weights.get(name)!.assign(tf.add(model.weights.get(name)!, 1));
    expect((await evaluate(model, [batch], undefined)).loss).not.toBe(before);
    model.weights.get(name)!.assign(tf.sub(model.weights.get(name)!, 1));
  });

  test('micro-batches: statistics are averaged over them as gradients are', async () => {
    const { model } = trainer({ dropout: 0, norm: 'batch' });
    const name = 'model.layers.0.attn_norm.running_var';
    const of = async (batches: LabelledBatch[]) => {
      const { grads } = await meanGradients(model, batches);
      const values = Float32Array.from(grads[name].dataSync());
      tf.dispose(grads);
      return values;
    };
    const [a, b, both] = [await of(batchesOf(4).slice(0, 1)), await of(batchesOf(4).slice(1)), await of(batchesOf(4))];
    expectClose(
      name,
      both,
      a.map((x, i) => (x + b[i]) / 2),
      1e-6,
    );
  });
});

describe('randomness of a step', () => {
  test('is that of its name: the same name the same step, another another; each micro-batch has its own', async () => {
    const trained = async (noise: string | undefined, batches = batchesOf(4)) => {
      const { model, optimizer } = trainer({ dropout: 0.5 });
      await trainStep(model, optimizer, batches, { ...update, noise });
      return everything(model, optimizer);
    };
    expect(await trained('a')).toEqual(await trained('a'));
    expect(await trained('a')).not.toEqual(await trained('b'));
    expect(await trained(undefined)).toEqual(await trained('0'));
    const [batch] = batchesOf(4);
    const { model } = trainer({ dropout: 0.5 });
    const loss = async (batches: LabelledBatch[]) => {
      const { loss, grads } = await meanGradients(model, batches, { noise: 'a' });
      tf.dispose(grads);
      return loss;
    };
    expect(await loss([batch, batch])).not.toBeCloseTo(await loss([batch]), 6);
  });
});

describe('workers', () => {
  const start = async (workers: number, settings: Partial<ClassifierConfigInput>) => {
    const { model, optimizer } = trainer(settings);
    const pool = await WorkerPool.start(model, optimizer, { workers, backend, adamW: {} });
    open.push(() => pool.close());
    return { model, optimizer, pool };
  };

  test('rows are dealt with their lengths and labels', () => {
    const dealt = dealRows(batchesOf(4), 3).flat();
    expect(dealt.map(({ batchSize }) => batchSize)).toEqual([2, 2, 1, 3]);
    expect(dealt.flatMap(({ labels }) => Array.from(labels))).toEqual([0, 1, 0, 1, 0, 1, 0, 1]);
    expect(
      dealt.flatMap(({ lengths, batchSize, seqLen }) => Array.from(lengths ?? Array(batchSize).fill(seqLen))),
    ).toEqual([3, 4, 5, 6, 3, 4, 5, 6]);
  });

  test('several train as one does, but for the last digits', async () => {
    const settings = { dropout: 0, norm: 'layer' } as const; // with neither, what a worker computes does not depend on the dealing
    const [alone, { pool, ...three }] = [trainer(settings), await start(3, settings)];
    const one = await trainStep(alone.model, alone.optimizer, batchesOf(8), update);
    const many = await pool.step(batchesOf(8), update);
    expect(many.loss).toBeCloseTo(one.loss, 6);
    expect(many.gradNorm).toBeCloseTo(one.gradNorm, 5);
    await pool.checkEqual();
    const [a, b] = [await optimizerMoments(alone.optimizer), await optimizerMoments(three.optimizer)];
    for (const [name, { data }] of a) expectClose(name, b.get(name)!.data, data, 1e-4); // means of gradients and of their squares
  });

  test('with batch norm and dropout: replicas stay equal, statistics are averaged, and the scores are one worker’s', async () => {
    const { model, pool } = await start(2, { dropout: 0.3, norm: 'batch' });
    const parts = dealRows(batchesOf(8), 2);
    const name = 'model.layers.0.attn_norm.running_mean';
    const statistics = await Promise.all(
      parts.map(async (part) => {
        const { grads } = await meanGradients(model, part);
        const values = Float32Array.from(grads[name].dataSync());
        tf.dispose(grads);
        return values;
      }),
    );
    await pool.step(batchesOf(8), { ...update, noise: 'a' });
    const want = statistics[0].map((x, i) => (0.05 * (x + statistics[1][i])) / 2);
    expectClose(name, Float32Array.from(model.weights.get(name)!.dataSync()), want, 1e-5);
    for (let i = 0; i < 3; i++) await pool.step(batchesOf(4), update);
    await pool.checkEqual();
    expect(await evaluate(model, batchesOf(2), undefined, { pool })).toEqual(
      await evaluate(model, batchesOf(2), undefined),
    );
  });
});

test('a thousand steps hold no more than fifty do', async () => {
  const { model, optimizer } = trainer();
  const step = async (i: number) => {
    await trainStep(model, optimizer, batchesOf(2, 4), update);
    if (i % 100 === 0) await evaluate(model, batchesOf(4), undefined);
  };
  for (let i = 0; i < 50; i++) await step(i);
  const { numTensors, numBytes } = tf.memory();
  for (let i = 50; i < 1000; i++) await step(i);
  expect(tf.memory()).toMatchObject({ numTensors, numBytes });
});

describe('figures', () => {
  test('of a regressor: mean squared error, its root, and the share of variance explained', () => {
    const tally = numbers.tally(undefined);
    const labels = Float32Array.of(1, 10, 2, 20, 3, 30);
    tally.add({ labels, batchSize: 3 } as LabelledBatch, { nats: 0, squares: [1, 200 / 3] });
    tally.add({ labels: Float32Array.of(4, 40), batchSize: 1 } as LabelledBatch, { nats: 0, squares: [1, 0] });
    const errors = 2 + 200 / 3;
    const spread = 5 + 500; // of 1 2 3 4 and of 10 20 30 40
    const { loss, rmse, r2, sequences } = tally.result();
    expect([loss, rmse, r2, sequences]).toEqual(
      [errors / 8, Math.sqrt(errors / 8), 1 - errors / spread, 4].map((x) => expect.closeTo(x, 10)),
    );
    expect(() => numbers.tally(undefined).result()).toThrow('there is no sequence to score');
  });

  test('the best is that of the highest accuracy; of text and numbers that of the lowest loss', () => {
    expect(figureOf({ loss: 1, accuracy: 0.5, sequences: 9 })).toEqual({ key: 'accuracy', value: 0.5 });
    expect(figureOf({ loss: 1, accuracy: 0.5, tokens: 9 })).toEqual({ key: 'loss', value: 1 });
    expect(figureOf({ loss: 1, rmse: 1, sequences: 9 })).toEqual({ key: 'loss', value: 1 });
    expect(isBetter({ key: 'accuracy', value: 0.6 }, 0.5)).toBe(true);
    expect(isBetter({ key: 'accuracy', value: 0.4 }, 0.5)).toBe(false);
    expect(isBetter({ key: 'loss', value: 0.4 }, 0.5)).toBe(true);
  });
});

const silent = { line: () => {}, tick: () => {}, stop: () => {} };

describe('runs', () => {
  test('a classifier learns the sign of a sum', async () => {
    const cwd = temporaryFolder();
    writeFileSync(join(cwd, 'signs.jsonl'), signs(600));
    const settings = { steps: 300, batchSize: 16, evalEvery: 100, logEvery: 100, saveEvery: 0 };
    const config = resolveRunConfig(tinySequenceRun({ train: settings, output: { dir: join(cwd, 'run') } }), {
      folder: cwd,
    });
    const lines: string[] = [];
    const { final, best } = await train(config, { progress: { ...silent, line: (text) => lines.push(text) } });
    expect(final?.sequences).toBe(60);
    expect(final?.accuracy).toBeGreaterThan(0.9);
    expect(best?.value).toBeGreaterThan(0.9);
    expect(lines.join('\n')).toMatch(/steps: 300 of 16 sequences\n/);
    expect(lines.join('\n')).toMatch(/^step 300\/300 {2}loss .* accuracy .* seq\/s/m);
    expect(lines.join('\n')).not.toMatch(/sample|state of a stream|gzip/);
    const rows = metricsOf(join(cwd, 'run'));
    expect(rows.at(-1)).toMatchObject({ kind: 'final', step: 300, accuracy: final?.accuracy, sequences: 60 });
    expect(rows[1]).toMatchObject({ kind: 'train', step: 100, sequences: 1600 });
    const state = JSON.parse(readFileSync(join(cwd, 'run', 'checkpoints', 'step-00000300', 'state.json'), 'utf8'));
    expect(state.metrics.bestAccuracy).toBe(best?.value);
  });

  test('a regressor learns amplitudes and frequencies', async () => {
    const dir = join(temporaryFolder(), 'run');
    const config = resolveRunConfig({
      name: 'waves',
      model: {
        ...{ modelType: 'sequence_regressor', numTargets: 2, hiddenSize: 16, numLayers: 2 },
        mixers: [{ type: 'gla', numHeads: 2, useShortConv: true }],
      },
      data: { source: { type: 'sinusoids', length: 32, maxFrequency: 8, valExamples: 100, testExamples: 50 } },
      train: { steps: 300, batchSize: 16, lr: 0.01, evalEvery: 0, logEvery: 100, saveEvery: 0 },
      output: { dir },
    });
    const { final } = await train(config, { progress: silent });
    expect(final).toMatchObject({ sequences: 100 });
    expect(final?.accuracy).toBeUndefined();
    expect(final?.r2).toBeGreaterThan(0.7);
  });

  test('tokens of unequal lengths: listops of a few tokens', async () => {
    const dir = join(temporaryFolder(), 'run');
    const config = resolveRunConfig({
      name: 'ops',
      model: {
        ...{ modelType: 'sequence_classifier', numClasses: 10, vocabSize: 15, hiddenSize: 16, numLayers: 1 },
        ...{ mixers: [{ type: 'gla', numHeads: 2 }], pool: 'last' },
      },
      data: { source: { type: 'listops', minLength: 1, maxLength: 12, maxDepth: 2, maxArgs: 4, valExamples: 200 } },
      train: { steps: 200, batchSize: 16, lr: 0.01, evalEvery: 0, logEvery: 100, saveEvery: 0 },
      output: { dir },
    });
    const { final } = await train(config, { progress: silent });
    expect(final?.accuracy).toBeGreaterThan(0.6); // single digits, 3 in 4, are easy
  });

  test.each([1, 2])('on %i workers: killed, interrupted and resumed equals unbroken', async (workers) => {
    const cwd = temporaryFolder();
    const config = writeSequenceRun(cwd, tinySequenceRun({ train: { steps: 20, workers } }));
    const run = (dir: string, flags: string[], watch?: Parameters<typeof seqmix>[1]) =>
      seqmix(['train', config, `--output.dir=${dir}`, ...flags], { cwd, ...watch });
    const broken = async () => {
      expect((await run('broken', [], { watch: signalAtStep(6, 'SIGKILL') })).code).toBe('SIGKILL');
      expect((await run('broken', ['--resume'], { watch: signalAtStep(11, 'SIGINT') })).code).toBe(130);
      expect(await run('broken', ['--resume'])).toMatchObject({ code: 0, stderr: '' });
    };
    const [whole] = await Promise.all([run('unbroken', []), broken()]);
    expect(whole).toMatchObject({ code: 0, stderr: '' });
    for (const file of ['model.safetensors', 'optimizer.safetensors']) {
      const [a, b] = ['unbroken', 'broken'].map((dir) =>
        readFileSync(join(cwd, dir, 'checkpoints', 'step-00000020', file)),
      );
      expect(b.equals(a), file).toBe(true);
    }
    expect(metricsOf(join(cwd, 'broken'))).toEqual(metricsOf(join(cwd, 'unbroken')));
  });
});

describe('the command line', () => {
  const cwd = temporaryFolder();
  const config = writeSequenceRun(cwd, tinySequenceRun({ train: { steps: 60, saveEvery: 0 }, output: { dir: 'run' } }));
  beforeAll(async () => {
    expect(await seqmix(['train', config], { cwd })).toMatchObject({ code: 0, stderr: '' });
  });
  const cli = async (...args: string[]) => seqmix(args, { cwd });

  test('eval: test, other parts, files, noise', async () => {
    const json = async (...args: string[]) => JSON.parse((await cli('eval', 'run', '--json', ...args)).stdout);
    expect(await json()).toMatchObject({ part: 'test', sequences: 20, step: expect.any(Number) });
    const validation = await json('--split', 'validation');
    expect(validation).toMatchObject({ part: 'validation', sequences: 20 });
    expect(await json('--split', 'validation', '--batch-size', '3')).toMatchObject({ accuracy: validation.accuracy });
    expect(await json('--split', 'train')).toMatchObject({ sequences: 160 });
    expect(await json('signs.jsonl')).toMatchObject({ part: 'signs.jsonl', sequences: 200 });
    const noisy = (amplitude: string) =>
      json('--noise', 'fourier', '--amplitude', amplitude, '--frequencies', '0.3,2', '--seed', '4');
    const [none, strong] = [await noisy('0'), await noisy('50')];
    expect(none).toMatchObject({ loss: (await json()).loss, noise: { amplitude: 0, frequencies: [0.3, 2], seed: 4 } });
    expect(strong.accuracy).toBeLessThan(none.accuracy + 0.2);
    expect(strong.loss).toBeGreaterThan(none.loss);
    expect((await cli('eval', 'run')).stdout).toMatch(
      /^test: [\d.]+ nats\/sequence, accuracy [\d.]+ over 20 sequences$/m,
    );
  });

  test('noise-sweep: a row for each model, or all figures', async () => {
    const flags = ['--amplitude', '3', '--frequencies', '3', '--sequences', '12', '--batch-size', '4'];
    const { stdout, stderr } = await cli('noise-sweep', 'run', 'run', ...flags);
    expect(stderr).toBe('');
    const rows = stdout.trim().split('\n').slice(2);
    expect(rows).toHaveLength(2);
    expect(rows[0]).toMatch(/^\| run\S* \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$/);
    const [json] = JSON.parse((await cli('noise-sweep', 'run', '--json', ...flags)).stdout);
    expect(json).toMatchObject({ amplitude: 3, clean: { sequences: 20 }, noisy: { sequences: 20 } });
    expect(json.sweep.map((x: { evaluation: { sequences: number } }) => x.evaluation.sequences)).toEqual([12, 12, 12]);
  });

  test('predict: a line for each sequence, labels or not', async () => {
    writeFileSync(join(cwd, 'new.jsonl'), '{"x":[3,3,3,3,3]}\n{"x":[-3,-3,-3],"y":0}');
    const { stdout, stderr } = await cli('predict', 'run', '--data', 'new.jsonl', '--probabilities');
    expect(stderr).toBe('');
    const [a, b] = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(a).toMatchObject({ sequence: 'new.jsonl:1', class: 1 });
    expect(b).toMatchObject({ sequence: 'new.jsonl:2', class: 0 });
    expect(a.probabilities[0] + a.probabilities[1]).toBeCloseTo(1, 5);
    expect(a.probability).toBe(a.probabilities[1]);
  });

  test('describe and export', async () => {
    const { stdout } = await cli('describe', 'run');
    expect(stdout).toMatch(
      /^sequence_classifier: \d+ parameters; hidden size 8, 1 layers, steps of 1 numbers, 2 classes of a sequence$/m,
    );
    expect(stdout).toMatch(/^model\.layers\.0\.attn_norm\.running_mean +\[8\] +8 +statistics +no$/m);
    expect(stdout).toMatch(/^head\.weight +\[2, 8\] +16 +optimizer +yes$/m);
    expect(await cli('export', 'run', 'exported', '--dtype', 'F32')).toMatchObject({ code: 0 });
    expect(readFileSync(join(cwd, 'exported', 'README.md'), 'utf8')).toMatch(
      /A classifier of sequences trained[\s\S]*held-out accuracy/,
    );
    const [a, b] = await Promise.all([
      cli('predict', 'run', '--data', 'signs.jsonl'),
      cli('predict', 'exported', '--data', 'signs.jsonl'),
    ]);
    expect(b.stdout).toBe(a.stdout);
  });

  test.each([
    [['generate', 'run'], 'expected a language model, got a sequence_classifier'],
    [['eval', 'run', '--seq-len', '8'], '--seq-len is for language models'],
    [['eval', 'run', '--noise', 'fourier'], '--noise needs --frequencies'],
    [['eval', 'run', '--frequencies', '1'], '--frequencies is for --noise fourier'],
    [
      ['eval', 'run', '--noise', 'fourier', '--frequencies', '4'],
      'frequencies must be from 0 to pi radians per step, got 4',
    ],
    [['eval', 'gla-bytes-moby-dick', '--split', 'test'], '--split and --noise are for classifiers and regressors'],
    [
      ['predict', 'gla-bytes-moby-dick', '--data', 'signs.jsonl'],
      'expected a classifier or regressor, got a language model',
    ],
  ])('%j: %s', async (args, told) => {
    const { code, stderr } = await cli(...args);
    expect(code).not.toBe(0);
    expect(stderr).toContain(told);
  });
});

describe('config errors', () => {
  const problems = (overrides: object) => {
    try {
      resolveRunConfig(tinySequenceRun(overrides as never));
    } catch (error) {
      if (error instanceof ConfigError) return error.problems.map(({ path, message }) => `${path}: ${message}`);
      throw error;
    }
    return [];
  };
  const data = (source: object, rest: object = {}) => ({ data: { source, ...rest } });

  test.each([
    [
      data({ type: 'text', files: ['a.txt'] }),
      'data.source.type: a sequence_classifier needs labelled sequences, got "text"',
    ],
    [
      { model: { hiddenSize: 8 } },
      'model.modelType: labelled sequences need "sequence_classifier" or "sequence_regressor"',
    ],
    [
      { model: { hiddenSize: 8 }, ...data({ type: 'sequential-mnist' }) },
      'model.modelType: the data need "sequence_classifier", got "causal_lm"',
    ],
    [data({ type: 'sequential-mnist' }), 'model.numClasses: must be at least the 10 classes of the data, got 2'],
    [data({ type: 'listops' }), 'model.vocabSize: steps are tokens: set it to 15 in place of inputSize'],
    [
      data({ type: 'listops', minLength: 9, maxLength: 8 }),
      'data.source.minLength: must not exceed maxLength 8, got 9',
    ],
    [
      data({ type: 'listops', maxDepth: 2 }),
      'data.source.minLength: 2 levels of 10 arguments make at most 12 tokens, got 500',
    ],
    [data({ type: 'sinusoids' }), 'model.modelType: the data need "sequence_regressor", got "sequence_classifier"'],
    [
      data({ type: 'sinusoids', length: 64 }),
      'data.source.length: 40 cycles need more than 80 samples to be told from slower ones, got 64',
    ],
    [{ tokenizer: { type: 'bytes' } }, 'tokenizer: is for texts, got "bytes"; leave it out'],
    [
      { train: { samplePrompts: ['a'] } },
      'train.samplePrompts: only language models give samples: leave out samplePrompts and sampleEvery',
    ],
    [
      data({ type: 'sequences', files: ['a.csv'], testFraction: 0.5 }, { valFraction: 0.5 }),
      'data.source.testFraction: leaves nothing for training beside valFraction 0.5',
    ],
    [
      data({ type: 'sequences', files: ['a.csv'] }, { valFraction: 0 }),
      'train.evalEvery: there is no validation part (data.valFraction is 0), so it must be 0, got 6',
    ],
    [
      { model: { ...tinyClassifier, modelType: 'sequence_clasifier' } },
      'model.modelType: expected one of "causal_lm", "sequence_classifier", "sequence_regressor", got "sequence_clasifier"',
    ],
    [
      { model: { ...tinyClassifier, numClases: 3 } },
      'model.numClases: unknown key (with value 3); did you mean "numClasses"?',
    ],
  ])('%#', (overrides, told) => {
    expect(problems(overrides)).toContain(told);
  });

  test('irregular samples need a mixer that knows time', () => {
    const model = { modelType: 'sequence_regressor', numTargets: 2, hiddenSize: 8, mixers: ['gla'] };
    expect(problems({ model, ...data({ type: 'sinusoids', jitter: 0.5 }) }).join()).toContain(
      'model.mixers: samples are at irregular times',
    );
  });

  test('a complete config resolves to itself, and has no tokenizer', () => {
    const config = resolveRunConfig(tinySequenceRun());
    expect(config.tokenizer).toBeUndefined();
    expect(config.train.samplePrompts).toEqual([]);
    expect(resolveRunConfig(JSON.parse(JSON.stringify(config)))).toEqual(config);
  });
});
