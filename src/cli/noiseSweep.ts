import { basename } from 'node:path';
import { type BackendName, useBackend } from '../backend/useBackend.js';
import { linePlot } from '../plot/index.js';
import { replaceFile } from '../train/checkpoint/files.js';
import { type AnyBatch, loadTrainingData } from '../train/data/index.js';
import type { Evaluation } from '../train/evaluate.js';
import { type NoiseSweep, noiseSweep } from '../train/noiseSweep.js';
import { createSequenceModel, openModel } from '../train/openModel.js';

export interface NoiseSweepFlags {
  amplitude: number;
  frequencies: number;
  sequences: number;
  batchSize: number;
  seed: number;
  plot?: string;
  json: boolean;
  backend: BackendName;
}

interface Result extends NoiseSweep {
  model: string;
  step?: number;
}

/** `seqmix noise-sweep`. */
export async function runNoiseSweep(references: string[], flags: NoiseSweepFlags): Promise<number> {
  await useBackend(flags.backend);
  const results: Result[] = [];
  for (const reference of references) results.push(await sweepOf(reference, flags));
  if (flags.json) console.log(JSON.stringify(results, null, 2));
  else console.log(table(results));
  if (!flags.plot) return 0;
  await replaceFile(flags.plot, Buffer.from(await plotOf(results)));
  if (!flags.json) console.log(`plot: ${flags.plot}`);
  return 0;
}

async function sweepOf(reference: string, flags: NoiseSweepFlags): Promise<Result> {
  const opened = await openModel(reference);
  const { run, config, path, step } = opened;
  if (config.modelType === 'causal_lm')
    throw new Error(`noise-sweep: expected a classifier or regressor, got the language model ${path}`);
  if (!run) throw new Error(`noise-sweep: the data that ${path} was trained on are not recorded`);
  const { batchSize } = flags;
  const data = await loadTrainingData({ ...run, model: config, train: { ...run.train, batchSize } }, undefined);
  const { validation, test = validation } = data;
  if (!validation || !test) throw new Error(`noise-sweep: the data of ${path} have no part for validation`);
  const model = createSequenceModel(opened);
  const onProgress = process.stderr.isTTY
    ? (done: number, total: number) => void process.stderr.write(`\r${path}: ${done}/${total} frequencies`)
    : undefined;
  const search = () => first(validation.batches(), Math.ceil(flags.sequences / batchSize));
  const sweep = await noiseSweep(model, { search, test: () => test.batches() }, { ...flags, onProgress });
  if (onProgress) process.stderr.write('\r\x1b[K');
  model.dispose();
  return { model: path, step, ...sweep };
}

function* first(batches: Iterable<AnyBatch>, count: number): Generator<AnyBatch> {
  let left = count;
  for (const batch of batches) {
    if (left-- === 0) return;
    yield batch;
  }
}

/** Accuracy, or the error of a regressor. */
const figure = ({ accuracy, rmse, loss }: Evaluation): number => accuracy ?? rmse ?? loss;

function table(results: readonly Result[]): string {
  const name = results.some(({ clean }) => clean.accuracy !== undefined) ? 'accuracy' : 'rmse';
  const lines = results.map(({ model, clean, noisy, worst, sweep }) => {
    const mean = sweep.reduce((sum, { evaluation }) => sum + figure(evaluation), 0) / sweep.length;
    const figures = [figure(clean), figure(noisy)].map((x) => x.toFixed(4));
    return `| ${[model, ...figures, worst.toFixed(3), mean.toFixed(4)].join(' | ')} |`;
  });
  return [
    `| model | ${name} | with noise of ${results[0].amplitude} | at radians per step | mean over frequencies |`,
    '| --- | --- | --- | --- | --- |',
    ...lines,
  ].join('\n');
}

const plotOf = (results: readonly Result[]): Promise<string> =>
  linePlot({
    title: `a sinusoid of ${results[0].amplitude} times each sequence`,
    x: { name: 'radians per step', min: 0, max: 3.2 },
    y: { name: results[0].clean.accuracy === undefined ? 'rmse' : 'accuracy', min: 0 },
    series: results.map(({ model, sweep }) => ({
      name: basename(model),
      points: sweep.map(({ frequency, evaluation }) => [frequency, figure(evaluation)] as const),
    })),
  });
