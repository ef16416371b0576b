/**
 * How well a diagonal form stands for HiPPO-LegS: errors of transfer functions and gains at the worst frequency, by size
 * (the experiment behind section 3 of the PTD paper, https://arxiv.org/abs/2310.01698).
 */
import { Rng } from '../rng.js';
import { legsInput } from './hippo.js';
import { ModeBasis } from './modeBasis.js';
import type { Perturbed, PtdOptions } from './ptd/index.js';
import {
  type Complex,
  distance,
  frequencyGrid,
  legsDiscreteTransfer,
  legsTransfer,
  type ModalSystem,
  modalDiscreteTransfer,
  modalSystem,
  modalTransfer,
  spikeFrequencies,
  supError,
} from './transfer.js';

/** What to compare. */
export interface StudyOptions {
  /** N, each even. */
  sizes: readonly number[];
  /** Of C and of the perturbations. */
  seed?: number | string;
  /** Weight of ||E|| in the optimised perturbation; default 100. */
  gamma?: number;
  /** Updates of the optimised perturbation; default 300. */
  steps?: number;
  /** Frequencies beside the spikes; default 3000. */
  points?: number;
  /** Called before each model, which may take a while. */
  progress?: (size: number, model: string) => void;
}

/** One diagonal form of one size. */
export interface ModelStudy {
  model: string;
  /** ||E||_2; 0 for S4D-LegS, which does not perturb. */
  eps: number;
  kappa: number;
  /** The largest real part. */
  maxRe: number;
  /** sup |G_model - G| over the grid and the spikes, and where. */
  sup: number;
  supAt: number;
  /** |G_model - G| at omega = 1 and at the largest spike. */
  atOne: number;
  atSpike: number;
  /** |H_model| after zero-order hold at the largest spike. */
  spikeGain: number;
}

/** All forms of one size, for one random unit C and B of HiPPO. */
export interface SizeStudy {
  size: number;
  /** The largest eigenfrequency of the normal part, about N^2 / pi. */
  spike: number;
  /** Step of the discrete gains: 0.001 at N = 64, such that the spike stays at 1.3 radians a step. */
  dt: number;
  /** Of HiPPO-LegS itself: sup |G|, and the discrete gains at the spike and at 0. */
  exact: { sup: number; spikeGain: number; constantGain: number };
  models: ModelStudy[];
  /** The same forms as systems, in the order of `models`, and B and C. */
  systems: ModalSystem[];
  b: Float64Array;
  c: Float64Array;
}

/** The forms compared: S4D-LegS is exact about A's normal part, PTD about A + E. */
const forms = (seed: number | string, gamma: number, steps: number): [string, PtdOptions | undefined][] => [
  ['S4D-LegS', undefined],
  ['PTD, Gaussian, eps 0.1', { method: 'random', epsAbs: 0.1, seed }],
  ['PTD, skew, 1%', { method: 'skew', epsRel: 0.01, seed }],
  [`PTD, optimised skew, gamma ${gamma}`, { method: 'optimised', gamma, steps, seed }],
];

/** Runs the comparison. The same options give the same numbers. */
export function transferStudy(options: StudyOptions): SizeStudy[] {
  return options.sizes.map((size) => studyOf(size, options));
}

function studyOf(size: number, { seed = 0, gamma = 100, steps = 300, points, progress }: StudyOptions): SizeStudy {
  const b = legsInput(size);
  const c = unitVector(new Rng(seed).split(`c/${size}`), size);
  const spikes = spikeFrequencies(size);
  const spike = spikes[spikes.length - 1];
  const dt = 1e-3 * (64 / size) ** 2;
  const exact = (omega: number) => legsTransfer(b, c, omega);
  const omegas = [...frequencyGrid(size, points), ...spikes];
  const studied = forms(seed, gamma, steps).map(([model, ptd]) => {
    progress?.(size, model);
    const basis = new ModeBasis({ stateSize: size, ptd });
    const system = modalSystem(basis, ptd ? b : b.map((x) => x / 2), c);
    const approximate = (omega: number) => modalTransfer(system, omega);
    const { error, omega } = supError(approximate, exact, omegas);
    const study: ModelStudy = {
      model,
      eps: ptd ? (basis.blocks[0] as Perturbed).eps : 0,
      kappa: basis.kappa,
      maxRe: Math.max(...basis.lambda.re),
      sup: error,
      supAt: omega,
      atOne: distance(approximate(1), exact(1)),
      atSpike: distance(approximate(spike), exact(spike)),
      spikeGain: magnitude(modalDiscreteTransfer(system, dt, spike * dt)),
    };
    return { study, system };
  });
  return {
    size,
    spike,
    dt,
    exact: {
      sup: Math.max(...omegas.map((omega) => magnitude(exact(omega)))),
      spikeGain: magnitude(legsDiscreteTransfer(b, c, dt, spike * dt)),
      constantGain: magnitude(legsDiscreteTransfer(b, c, dt, 0)),
    },
    models: studied.map(({ study }) => study),
    systems: studied.map(({ system }) => system),
    b,
    c,
  };
}

const magnitude = ([re, im]: Complex): number => Math.hypot(re, im);

function unitVector(rng: Rng, size: number): Float64Array {
  const x = Float64Array.from({ length: size }, () => rng.normal());
  const norm = Math.hypot(...x);
  return x.map((value) => value / norm);
}
