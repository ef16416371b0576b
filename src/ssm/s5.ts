/** Initial values of S5 (Smith et al. 2022, https://arxiv.org/abs/2208.04933) and S5-PTD (Yu et al. 2023, https://arxiv.org/abs/2310.01698). */
import { Matrix } from 'ml-matrix';
import type { Rng } from '../rng.js';
import type { ComplexArray } from './complexArray.js';
import { complexNormals, logSteps, normals, type StepRange, truncatedNormals } from './draws.js';
import { legsInput } from './hippo.js';
import { ModeBasis, type ModeBasisOptions } from './modeBasis.js';

/** What to start from. `stateSize` counts both of a conjugate pair. */
export interface S5InitOptions extends ModeBasisOptions, StepRange {
  /** H, features. */
  hiddenSize: number;
  /** `lecun` (default): a real sample of variance 1 / stateSize, then V^{-1} B. `hippo`: every column HiPPO's (S5-PTD on images). */
  bInit?: 'lecun' | 'hippo';
  /**
   * `truncated`: variance 1 / stateSize, then C V (`trunc_standard_normal` as the public code runs it). `lecun` (default): variance
   * 1 / (stateSize H), then C V. `complexNormal`: E|C|^2 = 1 in the eigenbasis.
   */
  cInit?: 'truncated' | 'lecun' | 'complexNormal';
  /** A second C for the reversed sequence; default false. */
  bidirectional?: boolean;
}

/** x' = lambda x + b u, y = 2 Re(c x) + d u (Re(c x) where `conjugate` is false) with steps exp(logStep). */
export interface S5Values {
  /** P, modes kept. */
  modes: number;
  conjugate: boolean;
  /** [P], Re < 0 */
  lambda: ComplexArray;
  /** [P, H] */
  b: ComplexArray;
  /** [H, P] */
  c: ComplexArray;
  /** [H, P], where `bidirectional` */
  cReverse?: ComplexArray;
  /** [P] */
  logStep: Float64Array;
  /** [H] */
  d: Float64Array;
}

/**
 * Draws all initial values. Each kind has a stream of its own, so that an option changes no other values.
 * @param basis of the same options, where it is there already
 */
export function initialS5(options: S5InitOptions, rng: Rng, basis = new ModeBasis(options)): S5Values {
  const { hiddenSize, bidirectional = false } = options;
  if (!(Number.isInteger(hiddenSize) && hiddenSize > 0))
    throw new RangeError(`initialS5: hiddenSize must be an integer > 0, got ${hiddenSize}`);
  return {
    modes: basis.modes,
    conjugate: basis.conjugate,
    lambda: basis.lambda,
    b: basis.input(inputs(options, basis, rng.split('b'))),
    c: outputs(options, basis, rng.split('c')),
    ...(bidirectional && { cReverse: outputs(options, basis, rng.split('cReverse')) }),
    logStep: logSteps(rng.split('dt'), basis.modes, options),
    d: normals(rng.split('d'), hiddenSize),
  };
}

/** B before the change of basis, [N, H]. */
function inputs(
  { bInit = 'lecun', hiddenSize, ptd }: S5InitOptions,
  { stateSize, blocks }: ModeBasis,
  rng: Rng,
): Matrix {
  if (bInit === 'lecun')
    return Matrix.from1DArray(stateSize, hiddenSize, [...truncatedNormals(rng, stateSize * hiddenSize, 1 / stateSize)]);
  if (bInit !== 'hippo')
    throw new RangeError(`initialS5: bInit must be "lecun" or "hippo", got ${JSON.stringify(bInit)}`);
  const size = stateSize / blocks.length;
  const one = legsInput(size);
  const scale = !ptd || ptd.method === 'none' ? 0.5 : 1; // the normal part goes with B / 2
  return Matrix.from1DArray(
    stateSize,
    hiddenSize,
    Array.from({ length: stateSize * hiddenSize }, (_, at) => scale * one[Math.floor(at / hiddenSize) % size]),
  );
}

/** [H, P] */
function outputs({ cInit = 'lecun', hiddenSize }: S5InitOptions, basis: ModeBasis, rng: Rng): ComplexArray {
  if (cInit === 'complexNormal') return complexNormals(rng, hiddenSize * basis.modes);
  const variances = { truncated: 1 / basis.stateSize, lecun: 1 / (basis.stateSize * hiddenSize) };
  const variance = variances[cInit];
  if (!variance)
    throw new RangeError(
      `initialS5: cInit must be "truncated", "lecun" or "complexNormal", got ${JSON.stringify(cInit)}`,
    );
  const sample = () =>
    basis.output(
      Matrix.from1DArray(hiddenSize, basis.stateSize, [
        ...truncatedNormals(rng, hiddenSize * basis.stateSize, variance),
      ]),
    );
  const [real, imaginary] = [sample(), sample()]; // C = real + i imaginary
  return {
    re: real.re.map((x, i) => x - imaginary.im[i]),
    im: real.im.map((x, i) => x + imaginary.re[i]),
  };
}
