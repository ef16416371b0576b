/** Initial values of S4D (Gu et al. 2022, https://arxiv.org/abs/2206.11893) and S4-PTD (Yu et al. 2023, https://arxiv.org/abs/2310.01698). */
import { Matrix } from 'ml-matrix';
import type { Rng } from '../rng.js';
import { type ComplexArray, complexConcat, complexFrom, complexZeros } from './complexArray.js';
import { complexNormals, logSteps, normals, type StepRange, spacedLogSteps } from './draws.js';
import { legsInput } from './hippo.js';
import { ModeBasis } from './modeBasis.js';
import type { PtdOptions } from './ptd/index.js';
import { type S4dSpectrum, type SpectrumOptions, s4dSpectrum } from './spectra.js';

/** What to start from. */
export interface S4dInitOptions extends SpectrumOptions, StepRange {
  /** H, channels: one state space each. */
  hiddenSize: number;
  /** N, states of each, counting both of a conjugate pair; default 64. */
  stateSize?: number;
  /** Default `legs`. */
  spectrum?: S4dSpectrum;
  /** Copies of A and B that the channels share, channel h taking copy h mod copies; default H. */
  copies?: number;
  /** Perturbs then diagonalises HiPPO-LegS instead of dropping a part of it; `spectrum` must be `legs`. */
  ptd?: PtdOptions;
  /** S4D-LegS's input: `half` (default) is what the theory needs, `full` twice that, `clip2` at most 2 as in the public code. */
  legsB?: 'half' | 'full' | 'clip2';
  /** `spectrum` (default): legsB for `legs`, else ones. The others replace it: complex normal, +1 -1, e^{-+ 2 pi i n / N}. */
  bInit?: 'spectrum' | 'ones' | 'random' | 'alternating' | 'unitCw' | 'unitCcw';
  /**
   * `normal`: complex normal, E|C|^2 = 1 (default). `unitParts`: both parts of variance 1 (the paper's listing). `projected`: C V of a real
   * standard normal C (default with ptd; `legs` only). `first`: not random, V^* e_0 for `legs`, else e_0.
   */
  cInit?: 'normal' | 'unitParts' | 'projected' | 'first';
  /** Rows of C for each channel; default 1. */
  outputs?: number;
  /** `channel` (default): one step for each channel; `mode`: one for each channel and mode. */
  dtPer?: 'channel' | 'mode';
  /** `random` (default), or `spaced`: evenly in log space over the channels. */
  dtInit?: 'random' | 'spaced';
}

/** x' = a x + b u, y = 2 Re(c x) + d u with steps exp(logDt). */
export interface S4dValues {
  /** M, modes of each channel: N/2, and with ptd half the number of real eigenvalues more. */
  modes: number;
  copies: number;
  /** [copies, M], Re < 0 */
  a: ComplexArray;
  /** [copies, M] */
  b: ComplexArray;
  /** [outputs, H, M] */
  c: ComplexArray;
  /** [H], or [H, M] */
  logDt: Float64Array;
  /** [outputs, H] */
  d: Float64Array;
}

/** One copy of A and B. */
interface Modes {
  a: ComplexArray;
  b: ComplexArray;
  /** c V, [rows, M], in the phases of b, for real c [rows, N]; of `legs` only. */
  project?: (c: Matrix) => ComplexArray;
}

/**
 * Draws all initial values. Each kind has a stream of its own, so that an option changes no other values.
 * @param basis of the same stateSize and ptd, where it is there already; of `legs` only
 */
export function initialS4d(options: S4dInitOptions, rng: Rng, basis?: ModeBasis): S4dValues {
  const { hiddenSize, stateSize = 64, copies = hiddenSize, outputs = 1 } = options;
  for (const [name, value] of Object.entries({ hiddenSize, stateSize, copies, outputs }))
    if (!(Number.isInteger(value) && value > 0))
      throw new RangeError(`initialS4d: ${name} must be an integer > 0, got ${value}`);
  if (hiddenSize % copies !== 0)
    throw new RangeError(`initialS4d: copies must divide hiddenSize, got ${copies} and ${hiddenSize}`);
  const { spectrum = 'legs', ptd, dtPer = 'channel', dtInit = 'random' } = options;
  if (spectrum !== 'legs' && perturbs(ptd))
    throw new RangeError(`initialS4d: ptd needs spectrum "legs", got "${spectrum}"`);
  const all = allCopies(options, stateSize, copies, rng, basis);
  const modes = all[0].a.re.length;
  const steps = dtPer === 'mode' ? hiddenSize * modes : hiddenSize;
  return {
    modes,
    copies,
    a: complexConcat(all.map(({ a }) => a)),
    b: complexConcat(all.map(({ b }) => b)),
    c: outputWeights(options, all[0], outputs * hiddenSize, stateSize, rng.split('c')),
    logDt: dtInit === 'spaced' ? spacedLogSteps(steps, options) : logSteps(rng.split('dt'), steps, options),
    d: normals(rng.split('d'), outputs * hiddenSize),
  };
}

const perturbs = (ptd: PtdOptions | undefined): ptd is PtdOptions => ptd !== undefined && ptd.method !== 'none';

function allCopies(
  options: S4dInitOptions,
  stateSize: number,
  copies: number,
  rng: Rng,
  basis: ModeBasis | undefined,
): Modes[] {
  const { spectrum = 'legs', ptd, realRandom, imagRandom, realScale, imagScale } = options;
  const changed = Boolean(realRandom || imagRandom) || realScale !== undefined || imagScale !== undefined;
  if (changed && perturbs(ptd))
    throw new RangeError('initialS4d: realRandom, imagRandom, realScale and imagScale change S4D spectra, got ptd too');
  const legs = spectrum === 'legs' ? legsModes(options, basis ?? new ModeBasis({ stateSize, ptd })) : undefined;
  return Array.from({ length: copies }, (_, copy) => {
    const stream = rng.split(`copy${copy}`);
    const a = legs && !changed ? legs.a : s4dSpectrum(spectrum, stateSize, stream.split('a'), options);
    return { ...legs, a, b: inputWeights(options.bInit, a.re.length, stateSize, legs, stream.split('b')) };
  });
}

/** Of S4D-LegS the phase of B is moved into C, which leaves B real and positive. */
function legsModes({ ptd, legsB = 'half' }: S4dInitOptions, basis: ModeBasis): Modes {
  const input = basis.input(Matrix.columnVector([...legsInput(basis.stateSize)]));
  if (perturbs(ptd)) return { a: basis.lambda, b: input, project: (c) => basis.output(c) };
  const sizes = input.re.map((re, m) => Math.hypot(re, input.im[m]));
  const laws = { half: (x: number) => x / 2, full: (x: number) => x, clip2: (x: number) => Math.min(x, 2) };
  if (!laws[legsB]) throw new RangeError(`initialS4d: legsB must be "half", "full" or "clip2", got ${legsB}`);
  const turned = (c: Matrix) => {
    const out = basis.output(c);
    return complexFrom(out.re.length, (at) => {
      const m = at % basis.modes;
      const [re, im] = [input.re[m] / sizes[m], input.im[m] / sizes[m]];
      return [out.re[at] * re - out.im[at] * im, out.re[at] * im + out.im[at] * re];
    });
  };
  const b = { re: sizes.map(laws[legsB]), im: new Float64Array(sizes.length) };
  return { a: basis.lambda, b, project: turned };
}

function inputWeights(
  kind: S4dInitOptions['bInit'],
  modes: number,
  stateSize: number,
  legs: Modes | undefined,
  rng: Rng,
): ComplexArray {
  const turn = (n: number, sign: number) => (sign * 2 * Math.PI * n) / stateSize;
  switch (kind ?? 'spectrum') {
    case 'spectrum':
      return legs?.b ?? complexFrom(modes, () => [1, 0]);
    case 'ones':
      return complexFrom(modes, () => [1, 0]);
    case 'random':
      return complexNormals(rng, modes);
    case 'alternating':
      return complexFrom(modes, (n) => [n % 2 === 0 ? 1 : -1, 0]);
    case 'unitCw':
      return complexFrom(modes, (n) => [Math.cos(turn(n, -1)), Math.sin(turn(n, -1))]);
    case 'unitCcw':
      return complexFrom(modes, (n) => [Math.cos(turn(n, 1)), Math.sin(turn(n, 1))]);
    default:
      throw new RangeError(`initialS4d: unknown bInit ${JSON.stringify(kind)}`);
  }
}

/** [rows, M] */
function outputWeights(
  { cInit, ptd }: S4dInitOptions,
  { a, project }: Modes,
  rows: number,
  stateSize: number,
  rng: Rng,
): ComplexArray {
  const modes = a.re.length;
  const kind = cInit ?? (perturbs(ptd) ? 'projected' : 'normal');
  switch (kind) {
    case 'normal':
      return complexNormals(rng, rows * modes);
    case 'unitParts':
      return complexNormals(rng, rows * modes, 1);
    case 'projected': {
      if (!project) throw new RangeError('initialS4d: cInit "projected" needs spectrum "legs"; use "normal"');
      return project(Matrix.from1DArray(rows, stateSize, [...normals(rng, rows * stateSize)]));
    }
    case 'first': {
      const unit = Matrix.zeros(1, stateSize);
      unit.set(0, 0, 1);
      const row = project?.(unit) ?? {
        ...complexZeros(modes),
        re: Float64Array.from(a.re, (_, n) => (n === 0 ? 1 : 0)),
      };
      return complexFrom(rows * modes, (at) => [row.re[at % modes], -row.im[at % modes] + 0]);
    }
    default:
      throw new RangeError(`initialS4d: unknown cInit ${JSON.stringify(kind)}`);
  }
}
