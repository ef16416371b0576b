/** Random numbers of initial values, in float64 and from a seeded stream. */
import type { Rng } from '../rng.js';
import { type ComplexArray, complexFrom } from './complexArray.js';

/** n standard normal numbers. */
export const normals = (rng: Rng, n: number): Float64Array => Float64Array.from({ length: n }, () => rng.normal());

/** n complex normal numbers, each part with the given variance; 1/2 makes E|z|^2 = 1. */
export const complexNormals = (rng: Rng, n: number, partVariance = 0.5): ComplexArray => {
  const std = Math.sqrt(partVariance);
  return complexFrom(n, () => [std * rng.normal(), std * rng.normal()]);
};

/** The standard deviation of a standard normal number cut off at +-2. */
const TRUNCATED_STD = 0.87962566103423978;

/** n normal numbers cut off at two deviations, scaled so that the variance is the given one. */
export function truncatedNormals(rng: Rng, n: number, variance: number): Float64Array {
  const scale = Math.sqrt(variance) / TRUNCATED_STD;
  const draw = () => {
    for (;;) {
      const z = rng.normal();
      if (Math.abs(z) <= 2) return z * scale;
    }
  };
  return Float64Array.from({ length: n }, draw);
}

/** The range of the step dt. */
export interface StepRange {
  /** Default 0.001. */
  dtMin?: number;
  /** Default 0.1. */
  dtMax?: number;
}

/** The logarithms of n steps, dt log-uniform in the range. @throws RangeError unless 0 < dtMin <= dtMax */
export function logSteps(rng: Rng, n: number, range: StepRange = {}): Float64Array {
  const [low, high] = logRange(range);
  return Float64Array.from({ length: n }, () => low + (high - low) * rng.uniform());
}

/** The logarithms of n steps, evenly spaced over the range and not random; one step is dtMin. */
export function spacedLogSteps(n: number, range: StepRange = {}): Float64Array {
  const [low, high] = logRange(range);
  return Float64Array.from({ length: n }, (_, i) => low + (high - low) * (n > 1 ? i / (n - 1) : 0));
}

function logRange({ dtMin = 1e-3, dtMax = 0.1 }: StepRange): [number, number] {
  if (!(dtMin > 0 && dtMax >= dtMin && Number.isFinite(dtMax)))
    throw new RangeError(`step range: expected 0 < dtMin <= dtMax, got dtMin ${dtMin} and dtMax ${dtMax}`);
  return [Math.log(dtMin), Math.log(dtMax)];
}
