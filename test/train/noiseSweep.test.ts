/** What sinusoids on the input cost a classifier: every figure is that of `evaluate` on the corrupted batches. */
import { beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/backend/useBackend.js';
import { type ClassifierConfigInput, SequenceClassifier } from '../../src/models/index.js';
import { Rng } from '../../src/rng.js';
import { batchOf, corrupted, type LabelledBatch } from '../../src/train/data/index.js';
import { evaluate } from '../../src/train/evaluate.js';
import { noiseSweep } from '../../src/train/noiseSweep.js';
import { tinyClassifier } from '../support/sequences.js';

beforeAll(() => useBackend('wasm'));

const config = tinyClassifier as unknown as ClassifierConfigInput;

function batches(seed: string): LabelledBatch[] {
  const example = (i: number) => ({ x: new Rng(seed).split(i).normalArray(20), y: i % 2 });
  return [0, 4].map((start) =>
    batchOf(
      [0, 1, 2, 3].map((i) => example(start + i)),
      1,
    ),
  );
}

describe('noiseSweep', () => {
  const [search, held] = [batches('search'), batches('test')];
  const data = { search: () => search, test: () => held };

  test('scores the search at every frequency, and the test at the worst of them', async () => {
    const model = new SequenceClassifier(config, { seed: 3 });
    const progress: number[] = [];
    const result = await noiseSweep(model, data, {
      ...{ amplitude: 2, frequencies: 4, seed: 5 },
      onProgress: (done, total) => progress.push(done / total),
    });
    expect(progress).toEqual([0.25, 0.5, 0.75, 1]);
    expect(result.sweep.map(({ frequency }) => frequency)).toEqual([1, 2, 3, 4].map((i) => (i * Math.PI) / 4));
    for (const { frequency, evaluation } of result.sweep) {
      const noise = { amplitude: 2, frequencies: [frequency], seed: 5 };
      expect(evaluation).toEqual(await evaluate(model, corrupted(search, noise), undefined));
    }
    const losses = result.sweep.map(({ evaluation }) => evaluation.loss);
    expect(new Set(losses).size).toBe(4); // the frequency matters
    expect(result.worst).toBe(result.sweep[losses.indexOf(Math.max(...losses))].frequency);
    expect(result.clean).toEqual(await evaluate(model, held, undefined));
    const worst = { amplitude: 2, frequencies: [result.worst], seed: 5 };
    expect(result.noisy).toEqual(await evaluate(model, corrupted(held, worst), undefined));
    expect(result.noisy).not.toEqual(result.clean);
    model.dispose();
  });

  test('without amplitude nothing changes', async () => {
    const model = new SequenceClassifier(config, { seed: 3 });
    const { clean, noisy } = await noiseSweep(model, data, { amplitude: 0, frequencies: 1 });
    expect(noisy).toEqual(clean);
    model.dispose();
  });

  test('errors say what was expected', async () => {
    const model = new SequenceClassifier(config);
    const fails = (options: object) => expect(noiseSweep(model, data, options)).rejects;
    await fails({ frequencies: 0 }).toThrow('noiseSweep: frequencies must be a whole number above 0, got 0');
    await fails({ amplitude: -1 }).toThrow('addSinusoids: amplitude must be zero or a positive number, got -1');
    model.dispose();
  });
});
