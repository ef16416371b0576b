/** Tiny classifiers and regressors, and runs of them. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunConfigInput } from '../../src/config/index.js';
import { Rng } from '../../src/rng.js';

/** With everything that has a state of its own in training: batch norm and dropout. */
export const tinyClassifier = {
  ...{ modelType: 'sequence_classifier', numClasses: 2, inputSize: 1, hiddenSize: 8, numLayers: 1, chunkSize: 8 },
  ...{ norm: 'batch', dropout: 0.1, mixers: [{ type: 'gla', numHeads: 2, expandK: 1 }] },
} as const;

/** Sequences of 4 to 12 numbers whose class is the sign of their sum, as JSON lines. */
export const signs = (count: number, seed = 0): string =>
  Array.from({ length: count }, (_, i) => {
    const rng = new Rng(seed).split(i);
    const x = Array.from(rng.normalArray(4 + rng.int(9)), (value) => Math.round(value * 1e3) / 1e3);
    return JSON.stringify({ x, y: x.reduce((a, b) => a + b, 0) > 0 ? 1 : 0 });
  }).join('\n');

/** A run on `signs.jsonl` of the same folder. */
export function tinySequenceRun(overrides: { train?: object; [key: string]: unknown } = {}): RunConfigInput {
  const { train, ...rest } = overrides;
  return {
    name: 'tiny-sequences',
    backend: { name: 'wasm', relaxedSimd: 'off' }, // so that every process rounds alike
    model: tinyClassifier,
    data: { source: { type: 'sequences', files: ['signs.jsonl'], testFraction: 0.1 }, valFraction: 0.1 },
    train: {
      ...{ steps: 20, batchSize: 4, lr: 0.02, logEvery: 1, evalEvery: 6, evalBatches: 4, saveEvery: 4 },
      ...train,
    },
    ...rest,
  } as RunConfigInput;
}

/** Writes `signs.jsonl` and `run.json` into a folder. @returns the path of the config */
export function writeSequenceRun(folder: string, config: RunConfigInput = tinySequenceRun()): string {
  writeFileSync(join(folder, 'signs.jsonl'), signs(200));
  writeFileSync(join(folder, 'run.json'), JSON.stringify(config));
  return join(folder, 'run.json');
}
