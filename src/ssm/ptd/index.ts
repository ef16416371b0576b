/**
 * Perturb then diagonalise (PTD; Yu et al. 2023, https://arxiv.org/abs/2310.01698): HiPPO-LegS has no usable eigenvectors (condition
 * number 1e23 at N = 64), A + E with a small E has. Unlike S4D-LegS, which drops a rank-one part of A, the diagonal form of A + E has the
 * transfer function of A up to the order of E, at every frequency. E is not trained: it only makes initial values.
 *
 * A skew-symmetric E keeps the symmetric part of A + E at or below -I/2, so every mode decays (Re lambda <= -1/2) whatever its size. A
 * general E does so for ||E|| < 1/2 only; larger ones, of the sizes the paper recommends, often make modes grow.
 */
import { Matrix } from 'ml-matrix';
import { Rng } from '../../rng.js';
import { type Eigen, eigen, spectralNorm } from '../eigen.js';
import { legsMatrix } from '../hippo.js';
import { optimisePerturbation } from './optimise.js';

/** How E is made. */
export interface PtdOptions {
  /**
   * `skew` (default): random skew-symmetric. `random`: Gaussian. `optimised`: from a small random one by gradient descent on
   * kappa(V) + gamma ||E||. `given`: `matrix`. `none`: no perturbation, the normal part of A is diagonalised as in S4D and S5.
   */
  method?: 'none' | 'random' | 'skew' | 'optimised' | 'given';
  /** ||E||_2 / ||A||_2; default 0.01, and 0.001 where the optimiser starts. */
  epsRel?: number;
  /** ||E||_2, instead of `epsRel`. */
  epsAbs?: number;
  /** Optimiser: weight of ||E||; default 100. */
  gamma?: number;
  /** Optimiser: updates; default 300 (about 6 s for N = 64). */
  steps?: number;
  /** Optimiser: the kind of E; default `skew`. */
  shape?: 'skew' | 'general';
  /** Of the stream E is drawn from; default 0. It does not depend on other draws. */
  seed?: number | string;
  /** Several blocks: `own` (default) draws an E for each, `same` uses one. */
  blocks?: 'own' | 'same';
  /** E itself, N rows of N numbers. */
  matrix?: readonly (readonly number[])[];
  /** A mode that does not decay: `refuse` (default) is an error, `clip` sets its real part to -1e-4, which changes the transfer function. */
  unstable?: 'refuse' | 'clip';
  /**
   * Real eigenvalues, which have no conjugate: `halve` (default) keeps all of them with half their output weight, so that y = 2 Re(C x)
   * holds for every mode and there are more than N / 2; `redraw` draws E (`skew`, `random`) again until there is none.
   */
  realModes?: 'halve' | 'redraw';
}

/** A + E = V Lambda V^{-1}. */
export interface Perturbed extends Eigen {
  /** E [N, N]. */
  e: Matrix;
  /** ||E||_2. */
  eps: number;
}

/** The real part to which unstable modes are clipped, as S5's `clip_eigs`. */
const CLIPPED = -1e-4;
/** Draws of E before giving up on one without real eigenvalues. */
const MAX_DRAWS = 100;

/**
 * HiPPO-LegS of N states, perturbed and diagonalised. Not for method `none`.
 * @param label tells blocks apart that draw their own E
 * @throws RangeError for options out of range, an unstable mode, or eigenvectors too close to dependent
 */
export function perturbThenDiagonalise(size: number, options: PtdOptions = {}, label = 'block0'): Perturbed {
  checkOptions(size, options);
  const a = legsMatrix(size);
  const target = options.epsAbs ?? (options.epsRel ?? (options.method === 'optimised' ? 1e-3 : 1e-2)) * spectralNorm(a);
  const rng = new Rng(options.seed ?? 0).split(`ptd/${label}`);
  const draws = options.realModes === 'redraw' ? MAX_DRAWS : 1;
  for (let draw = 0; draw < draws; draw++) {
    const e = perturbation(a, target, options, rng);
    const found = eigen(Matrix.add(a, e));
    if (options.realModes === 'redraw' && found.reals > 0) continue;
    return { ...decaying(found, options), e, eps: spectralNorm(e) };
  }
  throw new RangeError(
    `ptd: none of ${MAX_DRAWS} perturbations of size ${target} left ${size} states without real eigenvalues; use realModes "halve" or another size`,
  );
}

/** E by the method. */
function perturbation(a: Matrix, target: number, options: PtdOptions, rng: Rng): Matrix {
  const { method = 'skew', gamma = 100, steps = 300, shape = 'skew' } = options;
  if (method === 'given') return new Matrix(options.matrix!.map((row) => [...row]));
  const skew = method === 'skew' || (method === 'optimised' && shape === 'skew');
  const drawn = skew ? skewNormal(rng, a.rows) : normal(rng, a.rows);
  const norm = spectralNorm(drawn);
  const e = norm > 0 ? drawn.mul(target / norm) : drawn; // a skew matrix of one state is 0
  return method === 'optimised' ? optimisePerturbation(a, e, { gamma, steps, shape }) : e;
}

function normal(rng: Rng, size: number): Matrix {
  const e = Matrix.zeros(size, size);
  for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) e.set(i, j, rng.normal());
  return e;
}

function skewNormal(rng: Rng, size: number): Matrix {
  const e = Matrix.zeros(size, size);
  for (let i = 0; i < size; i++)
    for (let j = 0; j < i; j++) {
      const x = rng.normal();
      e.set(i, j, x);
      e.set(j, i, -x);
    }
  return e;
}

/** Modes that do not decay refused or clipped. */
function decaying(found: Eigen, { method = 'skew', unstable = 'refuse' }: PtdOptions): Eigen {
  const worst = Math.max(...found.lambda.re);
  if (worst < 0) return found;
  if (unstable === 'refuse')
    throw new RangeError(
      `ptd: method "${method}" must leave every mode decaying, got a real part of ${worst.toPrecision(3)}; use method "skew", a size below 1/2 (epsAbs), or unstable "clip"`,
    );
  return { ...found, lambda: { re: found.lambda.re.map((x) => Math.min(x, CLIPPED)), im: found.lambda.im } };
}

function checkOptions(size: number, options: PtdOptions): void {
  const refuse = (what: string): never => {
    throw new RangeError(`ptd: ${what}`);
  };
  const { method = 'skew', epsRel, epsAbs, gamma, steps, matrix, realModes } = options;
  if (!Number.isInteger(size) || size < 2) refuse(`the number of states must be an integer of at least 2, got ${size}`);
  if (!['random', 'skew', 'optimised', 'given'].includes(method))
    refuse(`method must be "random", "skew", "optimised" or "given", got ${JSON.stringify(method)}`);
  if (epsRel !== undefined && epsAbs !== undefined)
    refuse(`give epsRel or epsAbs, not both, got ${epsRel} and ${epsAbs}`);
  for (const [name, value] of Object.entries({ epsRel, epsAbs, gamma }))
    if (value !== undefined && !(value > 0 && Number.isFinite(value)))
      refuse(`${name} must be a number > 0, got ${value}`);
  if (steps !== undefined && !(Number.isInteger(steps) && steps > 0))
    refuse(`steps must be an integer > 0, got ${steps}`);
  if ((method === 'given') !== (matrix !== undefined))
    refuse(`"matrix" belongs to method "given", got method "${method}" ${matrix ? 'and a matrix' : 'and no matrix'}`);
  if (matrix && !(matrix.length === size && matrix.every((row) => row.length === size)))
    refuse(`matrix must be ${size} rows of ${size} numbers, got ${matrix.length} rows of ${matrix[0]?.length}`);
  if (realModes === 'redraw' && method !== 'skew' && method !== 'random')
    refuse(`realModes "redraw" needs method "skew" or "random", got "${method}"`);
}
