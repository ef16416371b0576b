/** How much a sinusoid on its input costs a classifier or regressor, by the frequency of the sinusoid. */
import type { SequenceModel } from '../models/index.js';
import { type AnyBatch, corrupted } from './data/index.js';
import { type Evaluation, evaluate } from './evaluate.js';

export interface NoiseSweepOptions {
  /** Root mean square of the noise over that of each sequence; default 0.1. */
  amplitude?: number;
  /** Frequencies tried, evenly spaced above 0 up to pi radians per step; default 64. */
  frequencies?: number;
  /** Of the random phases; default 0. */
  seed?: number;
  /** Called after each frequency. */
  onProgress?: (done: number, total: number) => void;
}

export interface NoiseSweep {
  amplitude: number;
  /** On the sequences of the search, by frequency. */
  sweep: { frequency: number; evaluation: Evaluation }[];
  /** The frequency of the largest loss in the search. */
  worst: number;
  /** On the test, without noise and with noise of the worst frequency. */
  clean: Evaluation;
  noisy: Evaluation;
}

/**
 * Looks for the frequency that costs most on `search`, and scores `test` without noise and with it: so what is reported is not of the
 * sequences that chose the frequency. Noise as `corrupted` makes it.
 * @param search asked for once for each frequency
 * @throws RangeError for an amplitude below 0, no frequency, or sequences of tokens
 */
export async function noiseSweep(
  model: SequenceModel,
  { search, test }: { search: () => Iterable<AnyBatch>; test: () => Iterable<AnyBatch> },
  { amplitude = 0.1, frequencies: count = 64, seed = 0, onProgress }: NoiseSweepOptions = {},
): Promise<NoiseSweep> {
  if (!(Number.isInteger(count) && count > 0))
    throw new RangeError(`noiseSweep: frequencies must be a whole number above 0, got ${count}`);
  const at = (batches: Iterable<AnyBatch>, frequency: number) =>
    evaluate(model, corrupted(batches, { amplitude, frequencies: [frequency], seed }), undefined);
  const sweep: NoiseSweep['sweep'] = [];
  for (let i = 1; i <= count; i++) {
    const frequency = (i * Math.PI) / count;
    sweep.push({ frequency, evaluation: await at(search(), frequency) });
    onProgress?.(i, count);
  }
  const worst = sweep.reduce((a, b) => (b.evaluation.loss > a.evaluation.loss ? b : a)).frequency;
  const clean = await evaluate(model, test(), undefined);
  return { amplitude, sweep, worst, clean, noisy: await at(test(), worst) };
}
