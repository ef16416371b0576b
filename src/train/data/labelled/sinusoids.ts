/**
 * Sampled sinusoids a sin(2 pi f t + phase), t in [0, 1), of which a model tells amplitude and frequency: a test of how state spaces
 * answer frequencies (after Yu et al. 2023, https://arxiv.org/abs/2310.01698, Sec. 3.4). Targets: [a, f / maxFrequency].
 */
import { Rng } from '../../../rng.js';
import type { Example, Examples, Part } from './examples.js';
import type { SinusoidsSource } from './schema.js';

/** @param seed decides every example, together with its number */
export function sinusoids(
  source: SinusoidsSource,
  part: Part,
  seed: string,
  size = Number.POSITIVE_INFINITY,
): Examples {
  const rng = new Rng(seed);
  return { size, read: (index) => sinusoid(rng.split(`example ${index}`), source, part) };
}

function sinusoid(rng: Rng, source: SinusoidsSource, part: Part): Example {
  const { length, noise, jitter, minAmplitude, maxAmplitude, maxFrequency } = source;
  const [low, high] = frequenciesOf(source, part);
  const amplitude = between(rng, minAmplitude, maxAmplitude);
  const frequency = between(rng, low, high);
  const phase = between(rng, 0, 2 * Math.PI);
  const intervals = jitter > 0 ? rng.uniformArray(length, 1 - jitter, 1 + jitter) : undefined;
  const added = noise > 0 ? rng.normalArray(length, noise) : undefined;
  const x = new Float32Array(length);
  let time = 0;
  for (let i = 0; i < length; i++) {
    if (i > 0) time += intervals?.[i] ?? 1;
    x[i] = amplitude * Math.sin((2 * Math.PI * frequency * time) / length + phase) + (added?.[i] ?? 0);
  }
  const y = Float32Array.of(amplitude, frequency / maxFrequency);
  return intervals ? { x, y, intervals } : { x, y };
}

/** Cycles in a sequence, from and to. */
export function frequenciesOf(source: SinusoidsSource, part: Part): [number, number] {
  const { minFrequency, maxFrequency, testMinFrequency = minFrequency, testMaxFrequency = maxFrequency } = source;
  return part === 'test' ? [testMinFrequency, testMaxFrequency] : [minFrequency, maxFrequency];
}

const between = (rng: Rng, low: number, high: number) => low + (high - low) * rng.uniform();
