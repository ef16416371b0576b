import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { beforeEach, describe, expect, test } from 'vitest';
import { type RunConfig, resolveRunConfig } from '../../src/config/index.js';
import { CheckpointError, latestCheckpoint, loadCheckpoint } from '../../src/train/checkpoint/index.js';
import { DataError } from '../../src/train/data/index.js';
import { TrainingDivergedError, type TrainOptions, train } from '../../src/train/loop.js';
import { metricsOf, temporaryFolder, text, tinyRun, writeRun } from '../support/run.js';

const folder = temporaryFolder();
writeRun(folder);
let lines: string[] = [];
beforeEach(() => {
  lines = [];
});
const progress = { line: (line: string) => void lines.push(line), tick: () => {}, stop: () => {} };

let runs = 0;
/** A tiny run in a folder of its own. */
function configOf(overrides: Parameters<typeof tinyRun>[0] = {}): RunConfig {
  return resolveRunConfig(tinyRun({ output: { dir: join(folder, `run-${runs++}`) }, ...overrides }), { folder });
}
const run = (config: RunConfig, options: TrainOptions = {}) => train(config, { progress, ...options });
const changed = (config: RunConfig, train: object): RunConfig => ({ ...config, train: { ...config.train, ...train } });

test('a whole run: learns, reports, keeps the last and the best checkpoint, frees everything', async () => {
  const before = tf.memory().numTensors;
  const config = configOf({ train: { steps: 30, keepLast: 1, sampleEvery: 12, logEvery: 5 } });
  const { status, step, final, best, runDir } = await run(config);
  expect({ status, step, runDir }).toEqual({ status: 'done', step: 30, runDir: config.output.dir });
  expect(tf.memory().numTensors).toBe(before);

  const metrics = metricsOf(runDir);
  const steps = (kind: string) => metrics.filter((row) => row.kind === kind).map((row) => row.step);
  expect(steps('train')).toEqual([1, 5, 10, 15, 20, 25, 30]);
  expect(steps('eval')).toEqual([6, 12, 18, 24, 30]);
  expect(metrics.at(-1)).toEqual({ kind: 'final', step: 30, ...final });
  const scores = metrics.filter((row) => row.kind === 'eval').map((row) => row.bpb!);
  expect(best!.value).toBe(Math.min(...scores));
  expect(scores.at(-1)).toBeLessThan(0.9 * metrics[0].bpb!);
  expect(final!.tokens).toBe(Math.round(text.length * 0.1) - 1);

  const { step: saved, metrics: figures } = await loadCheckpoint((await latestCheckpoint(runDir))!);
  expect(saved).toBe(30);
  expect(figures.bestBpb).toBe(best!.value);
  const report = lines.join('\n');
  expect(report).toMatch(
    /^seqmix tiny: 3,\d{3} parameters, 2 layers, backend wasm \(plain SIMD kernels(, products by .*)?\), seed 0$/m,
  );
  expect(report).toMatch(/^step 30\/30 {2}loss \d\.\d{4} {2}bpb .* lr 1\.00e-3 {2}\|g\| .* tok\/s .* ETA 0s$/m);
  expect(report).toMatch(/^whole validation part: .* bits\/byte over \d+ tokens$/m);
  expect(report).toMatch(/^gzip -9 of the same bytes: \d\.\d{3} bits\/byte; (the model|gzip) is ahead$/m);
  expect(report.match(/--- sample 1: "line "\nline /g)).toHaveLength(3); // after steps 12 and 24, and at the end
});

test('the same seed gives the same run, another seed another', async () => {
  const metrics = [];
  for (const seed of [1, 1, 2]) {
    const { runDir } = await run(configOf({ seed, train: { steps: 3, evalEvery: 0, samplePrompts: [] } }));
    metrics.push(metricsOf(runDir));
  }
  expect(metrics[1]).toEqual(metrics[0]);
  expect(metrics[2][0].loss).not.toBe(metrics[0][0].loss);
});

test('without a validation part there is neither evaluation nor comparison', async () => {
  const data = { source: { type: 'text', files: ['text.txt'] }, valFraction: 0 };
  const { final, best } = await run(configOf({ data, train: { steps: 2, evalEvery: 0 } }));
  expect({ final, best }).toEqual({ final: undefined, best: undefined });
  expect(lines.join('\n')).not.toMatch(/validation part:|gzip/);
});

describe('a loss that is not finite', () => {
  test('stops the run, names the step, keeps the last good checkpoint', async () => {
    const config = configOf({ train: { steps: 4, schedule: 'constant', evalEvery: 0, samplePrompts: [] } });
    await run(config);
    const kept = readFileSync(join(config.output.dir, 'checkpoints/step-00000004/model.safetensors'));
    const wild = changed(config, { steps: 30, lr: 1e25, clipNorm: 0 });
    const failure = await run(wild, { resume: true }).catch((error: unknown) => error as Error);
    expect(failure).toBeInstanceOf(TrainingDivergedError);
    const message = (failure as Error).message;
    expect(message).toMatch(
      /^train: (the loss is (NaN|Infinity)|a gradient is not finite) at step [67] \(learning rate 1/,
    );
    expect(message).toContain('the checkpoint of step 4 is kept. Lower train.lr');
    const latest = (await latestCheckpoint(config.output.dir))!;
    expect(latest).toMatch(/step-00000004$/);
    expect(readFileSync(join(latest, 'model.safetensors')).equals(kept)).toBe(true);
    expect((await run(changed(config, { steps: 6 }), { resume: true })).step).toBe(6);
  });

  test('in an evaluation stops the run too, and is never the best', async () => {
    const config = configOf({ train: { steps: 8, lr: 1e38, warmupSteps: 0, clipNorm: 0, evalEvery: 1, saveEvery: 1 } });
    await expect(run(config)).rejects.toThrow(
      /^train: the validation loss is (NaN|Infinity) at step 1 .*; there is no checkpoint yet\. /,
    );
    expect(await latestCheckpoint(config.output.dir)).toBeUndefined();
  });
});

describe('a folder with a run in it', () => {
  test('is refused without --resume or --fresh; --fresh starts anew', async () => {
    const config = configOf({ train: { steps: 2, evalEvery: 0, samplePrompts: [] } });
    await run(config);
    await expect(run(config)).rejects.toThrow(
      /already holds a run \(.*step-00000002\); pass --resume to go on, --fresh/,
    );
    const { step } = await run(changed(config, { steps: 1 }), { fresh: true });
    expect(step).toBe(1);
    expect(metricsOf(config.output.dir).map((row) => row.step)).toEqual([1, 1]);
    expect(await latestCheckpoint(config.output.dir)).toMatch(/step-00000001$/);
  });

  test('is left as it is by --fresh when the new run cannot start', async () => {
    const config = configOf({ train: { steps: 1, evalEvery: 0, samplePrompts: [] } });
    await run(config);
    const missing = { ...config, data: { ...config.data, source: { type: 'text' as const, files: ['nowhere.txt'] } } };
    await expect(run(missing, { fresh: true })).rejects.toThrow(DataError);
    expect(await latestCheckpoint(config.output.dir)).toMatch(/step-00000001$/);
  });

  test('resumes only the run it was made by: every setting that differs is named', async () => {
    const config = configOf({ train: { steps: 1, evalEvery: 0, samplePrompts: [] } });
    await run(config);
    const model = { ...config.model, hiddenSize: 16 };
    const other = { ...changed(config, { batchSize: 3 }), seed: 5, model };
    const failure = run(other, { resume: true });
    await expect(failure).rejects.toThrow(/step-00000001 is of another run:/);
    await expect(failure).rejects.toThrow(
      '  seed: the checkpoint has 0, the config 5\n  train.batchSize: the checkpoint has 2, the config 3\n  model.hiddenSize: the checkpoint has 8, the config 16\nResume with',
    );
    const faster = changed(config, { lr: 0.02, steps: 2 }); // what does not spoil the state may change
    expect((await run(faster, { resume: true })).step).toBe(2);
  });

  test('resumes only on the same data', async () => {
    const config = configOf({ train: { steps: 1, evalEvery: 0, samplePrompts: [] } });
    const copy = join(folder, 'copy.txt');
    writeFileSync(copy, text);
    const moved = { ...config, data: { ...config.data, source: { type: 'text' as const, files: [copy] } } };
    await run(config);
    await run(changed(moved, { steps: 2 }), { resume: true }); // another path, the same text
    writeFileSync(copy, text.replace('line 7', 'line 8'));
    await expect(run(changed(moved, { steps: 3 }), { resume: true })).rejects.toThrow(
      /was trained on other data \(sha256 of its tokens [0-9a-f]{16}, now/,
    );
  });

  test('with a damaged checkpoint is refused before anything is touched, with the way out', async () => {
    const config = configOf({ train: { steps: 4, saveEvery: 2, evalEvery: 0, samplePrompts: [] } });
    await run(config);
    const file = join(config.output.dir, 'checkpoints/step-00000004/optimizer.safetensors');
    writeFileSync(file, readFileSync(file).subarray(0, -1));
    const resumed = () => run(changed(config, { steps: 6 }), { resume: true });
    const failure = await resumed().catch((error: unknown) => error as Error);
    expect(failure).toBeInstanceOf(CheckpointError);
    expect((failure as Error).message).toMatch(
      /optimizer\.safetensors is damaged: .*nothing was loaded\. The newest other checkpoint that is whole: .*step-00000002\. Delete .*step-00000004 and pass --resume/,
    );
    expect(existsSync(file)).toBe(true);
  });
});

describe('data', () => {
  test.each([
    [
      'a file that is not there',
      { source: { type: 'text', files: ['missing.txt'] } },
      /"[^"]*missing\.txt" matches no file/,
    ],
    ['an empty file', { source: { type: 'text', files: ['empty.txt'] } }, /empty\.txt is empty/],
    [
      'a text shorter than a sequence',
      { source: { type: 'text', files: ['short.txt'] }, valFraction: 0 },
      /needs 25 tokens .* got 10; lower train\.seqLen/,
    ],
    [
      'a validation part shorter than a sequence',
      { source: { type: 'text', files: ['text.txt'] }, valFraction: 0.001 },
      /needs 25 tokens .* larger data\.valFraction/,
    ],
  ])('%s is refused before the first step', async (_, data, message) => {
    writeFileSync(join(folder, 'empty.txt'), '');
    writeFileSync(join(folder, 'short.txt'), '0123456789');
    const config = configOf({ data, train: { steps: 1, evalEvery: 0 } });
    const before = tf.memory().numTensors;
    const failure = await run(config).catch((error: unknown) => error as Error);
    expect(failure).toBeInstanceOf(DataError);
    expect((failure as Error).message).toMatch(message);
    expect(existsSync(config.output.dir)).toBe(false);
    expect(tf.memory().numTensors).toBe(before);
  });

  test('a token outside the vocabulary is refused', async () => {
    const config = configOf({ train: { steps: 1 } });
    const small = { ...config, model: { ...config.model, vocabSize: 100 } };
    await expect(run(small)).rejects.toThrow(
      /tokens must be from 0 to 99, got 108 at position 0; raise the model's vocabSize/,
    );
  });
});

test('aborted before the first step, a run saves nothing and says so by its status', async () => {
  const config = configOf({ train: { steps: 3 } });
  expect(await run(config, { signal: AbortSignal.abort() })).toMatchObject({ status: 'interrupted', step: 0 });
  expect(lines.at(-1)).toBe('stopped before the first step. Go on with the same command and --resume');
  expect(await latestCheckpoint(config.output.dir)).toBeUndefined();
});
