/** Eigenvalues A_n = -a_n + i w_n that S4D starts from (Gu et al. 2022, https://arxiv.org/abs/2206.11893, sections 3 and 4). */
import type { Rng } from '../rng.js';
import { type ComplexArray, complexZeros } from './complexArray.js';
import { eigen } from './eigen.js';
import { legsNormalPart } from './hippo.js';

/** w_n of one of each conjugate pair, n = 0 .. N/2 - 1. */
const FREQUENCIES = {
  lin: (n: number, _size: number) => Math.PI * n,
  inv: (n: number, size: number) => (size / Math.PI) * (size / (2 * n + 1) - 1),
  inv2: (n: number, size: number) => (size / Math.PI) * (size / (n + 1) - 1),
  quad: (n: number, _size: number) => (2 * n + 1) ** 2 / Math.PI,
  real: (_n: number, _size: number) => 0,
};

/** `legs`: the normal part of HiPPO-LegS; `rand`: w = exp(z), z normal; `real`: A_n = -(n + 1). */
export type S4dSpectrum = keyof typeof FREQUENCIES | 'legs' | 'rand';

/** Ablations of the paper: random or rescaled real and imaginary parts. */
export interface SpectrumOptions {
  /** a_n = U(0, 1) instead of 1/2; for `real` floor(N U), as published. */
  realRandom?: boolean;
  /** floor(N/2) U(0, 1) instead of the index n. Not for `legs` and `rand`, which have no formula in n. */
  imagRandom?: boolean;
  /** Factor of a_n; default 1. */
  realScale?: number;
  /** Factor of w_n; default 1. */
  imagScale?: number;
}

/** The smallest a_n: real parts are held as logarithms and the like. */
const MIN_DECAY = 1e-4;

/**
 * The spectrum of one state space.
 * @param size N, the whole number of states: even
 * @returns [N/2], a_n >= 0.0001
 */
export function s4dSpectrum(
  kind: S4dSpectrum,
  size: number,
  rng: Rng,
  { realRandom = false, imagRandom = false, realScale = 1, imagScale = 1 }: SpectrumOptions = {},
): ComplexArray {
  if (!(Number.isInteger(size) && size > 0 && size % 2 === 0))
    throw new RangeError(`s4dSpectrum: the number of states must be even and > 0, got ${size}`);
  if (kind !== 'legs' && kind !== 'rand' && !(kind in FREQUENCIES))
    throw new RangeError(
      `s4dSpectrum: kind must be one of ${['legs', 'rand', ...Object.keys(FREQUENCIES)].join(', ')}, got ${JSON.stringify(kind)}`,
    );
  if (imagRandom && (kind === 'legs' || kind === 'rand'))
    throw new RangeError(`s4dSpectrum: imagRandom needs a spectrum with a formula in n, got "${kind}"; leave it out`);
  const [decays, places] = [rng.split('real'), rng.split('imag')];
  const out = complexZeros(size / 2);
  const legs = kind === 'legs' ? eigen(legsNormalPart(size)).lambda.im : undefined;
  for (let n = 0; n < size / 2; n++) {
    const index = imagRandom ? (size / 2) * places.uniform() : n;
    const w = legs?.[n] ?? (kind === 'rand' ? Math.exp(places.normal()) : FREQUENCIES[kind as 'lin'](index, size));
    const still = kind === 'real' ? n + 1 : 0.5;
    const drawn = () => (kind === 'real' ? Math.floor(size * decays.uniform()) : decays.uniform());
    out.re[n] = -Math.max(MIN_DECAY, realScale * (realRandom ? drawn() : still));
    out.im[n] = imagScale * w;
  }
  return out;
}
