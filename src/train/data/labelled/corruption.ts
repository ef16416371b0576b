/** Noise that is put on sequences of numbers to see what a model makes of it. */
import { Rng } from '../../../rng.js';
import { type AnyBatch, isLabelledBatch, type LabelledBatch } from '../batch.js';

export interface SinusoidNoise {
  /** Root mean square of the noise over that of the sequence. */
  amplitude: number;
  /** Radians per step, each from 0 to pi; all have an equal part of the noise. */
  frequencies: readonly number[];
}

/**
 * x + sum_f a sin(f t + phase), the phases random, one for each frequency and channel. With F frequencies
 * a = amplitude * rms(x) * sqrt(2 / F): over the phases, the noise has `amplitude` times the root mean square of the sequence.
 * @param x [T * channels]; not changed
 * @throws RangeError for a frequency or an amplitude out of range
 */
export function addSinusoids(
  x: Float32Array,
  channels: number,
  { amplitude, frequencies }: SinusoidNoise,
  rng: Rng,
): Float32Array {
  if (!(amplitude >= 0 && Number.isFinite(amplitude)))
    throw new RangeError(`addSinusoids: amplitude must be zero or a positive number, got ${amplitude}`);
  const bad = frequencies.find((frequency) => !(frequency >= 0 && frequency <= Math.PI));
  if (frequencies.length === 0 || bad !== undefined)
    throw new RangeError(`addSinusoids: frequencies must be from 0 to pi radians per step, got ${bad ?? 'none'}`);
  const rms = Math.sqrt(x.reduce((sum, value) => sum + value ** 2, 0) / x.length);
  const peak = amplitude * rms * Math.sqrt(2 / frequencies.length);
  const phases = frequencies.map(() => Array.from({ length: channels }, () => 2 * Math.PI * rng.uniform()));
  return x.map((value, i) => {
    const [t, channel] = [Math.floor(i / channels), i % channels];
    const sum = frequencies.reduce((all, frequency, f) => all + Math.sin(frequency * t + phases[f][channel]), 0);
    return value + peak * sum;
  });
}

/**
 * Batches with noise on every sequence, none on padding. Sequence number n has the phases of seed and n, however they are batched.
 * @throws RangeError for tokens, which have no amplitude
 */
export function* corrupted(
  batches: Iterable<AnyBatch>,
  { seed, ...noise }: SinusoidNoise & { seed: number | string },
): Generator<LabelledBatch> {
  const rng = new Rng(seed).split('noise');
  let number = 0;
  for (const batch of batches) {
    if (!isLabelledBatch(batch) || !(batch.inputs instanceof Float32Array))
      throw new RangeError('corrupted: sinusoids are for sequences of numbers, got tokens');
    const inputs = batch.inputs.slice();
    const width = batch.seqLen * batch.channels;
    for (let b = 0; b < batch.batchSize; b++) {
      const steps = batch.lengths?.[b] ?? batch.seqLen;
      const row = inputs.subarray(b * width, b * width + steps * batch.channels);
      row.set(addSinusoids(row, batch.channels, noise, rng.split(`sequence ${number++}`)));
    }
    yield { ...batch, inputs };
  }
}
