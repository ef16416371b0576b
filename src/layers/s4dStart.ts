/** Initial values of S4D's weights by their names, and the groups they train in. */
import type { Rng } from '../rng.js';
import { initialS4d, interleaved, type ModeBasis, Rng as Stream, untransformed } from '../ssm/index.js';
import { modeBasis } from './modeBases.js';
import type { S4DOptions } from './s4d.js';
import type { SsmLearningRate } from './s5Groups.js';
import type { WeightSpec } from './seqLayer.js';

type Basis = Pick<S4DOptions, 'stateSize' | 'ptd'>;

const basisOf = ({ stateSize, ptd }: Basis): ModeBasis => modeBasis({ stateSize, ...(ptd && { ptd }) });

/** M, complex modes of a channel: half of stateSize, and with `ptd` half the number of real eigenvalues more. */
export function s4dModes(options: Basis): number {
  const { stateSize, ptd } = options;
  return ptd && ptd.method !== 'none' ? basisOf(options).modes : stateSize / 2;
}

/** The start of a weight of the state space, in its own stream; `kernel.C_rev` is drawn as `kernel.C`. */
export function s4dStart(options: S4DOptions, name: string, rng: Rng): Float32Array {
  const { ptd, copies, realTransform, dtTransform, legsB, bInit, cInit } = options;
  const given = { ...options, ptd: ptd ?? undefined, copies: copies ?? options.hiddenSize };
  const choices = { legsB, bInit: bInit ?? undefined, cInit: cInit ?? undefined };
  const { a, b, c, d, logDt } = initialS4d(
    { ...given, ...choices },
    rng,
    options.spectrum === 'legs' ? basisOf(options) : undefined,
  );
  switch (name) {
    case 'kernel.log_dt':
      return Float32Array.from(dtTransform === 'exp' ? logDt : untransformed(dtTransform, logDt.map(Math.exp)));
    case 'kernel.log_A_real':
      return Float32Array.from(
        untransformed(
          realTransform,
          a.re.map((x) => -x),
        ),
      );
    case 'kernel.A_imag':
      return Float32Array.from(a.im);
    case 'kernel.B':
      return interleaved(b);
    case 'D':
      return Float32Array.from(d);
    default:
      return interleaved(c);
  }
}

/** B where it does not train: the same at every call, since all spectra but a random B have one. */
export function s4dFixedB(options: S4DOptions): Float32Array {
  return s4dStart(options, 'kernel.B', new Stream(options.seed).split('B'));
}

/** Rate and decay of a weight of the state space: dt, A and B do not decay and train at a rate of their own. */
export function s4dGroup(rate: SsmLearningRate, part: 'A' | 'B' | 'dt'): Pick<WeightSpec, 'learningRate' | 'decays'> {
  const own = typeof rate === 'object' && rate !== null ? rate[part] : rate;
  return { decays: false, ...(own !== null && own !== undefined && { learningRate: own }) };
}
