/**
 * How well the layers of Gated KalmaNet in a model solve their ridge regressions on a text, how well those are conditioned, and how long
 * their heads remember.
 */
import * as tf from '@tensorflow/tfjs';
import { checkPositiveInt } from '../chunked/check.js';
import { GatedKalmaNet, type GatedKalmaNetOptions } from '../layers/index.js';
import type { CausalLM } from '../models/index.js';
import { extremeEigenvalues } from './eigenvalues.js';
import {
  chebyshevResiduals,
  type HeadInputs,
  type Regression,
  regressionsAt,
  relativeResidual,
  residualBound,
} from './ridge.js';
import { quantile } from './statistics.js';

/** Over the sampled positions of all heads. */
export interface Spread {
  median: number;
  max: number;
}

/** Tokens after which half is forgotten, over all tokens: the shortest tenth, the median, the longest tenth. Infinite: never. */
export interface HalfLife {
  p10: number;
  median: number;
  p90: number;
}

export interface LayerConditioning extends Pick<GatedKalmaNetOptions, 'numIterations' | 'ridgeRatio' | 'solver'> {
  /** Number of the layer, from 0. */
  layer: number;
  heads: number;
  /** |q - (H + lambda I) x| / |q| of what the layer itself computes. `bound` holds for the iteration without rounding. */
  residual: Spread & { bound: number };
  /** Condition number of H + lambda I, and the bound (ridgeRatio + 1) / ridgeRatio. */
  condition: Spread & { bound: number };
  /** Of each head. */
  halfLives: HalfLife[];
  /** Relative residuals by steps of the iteration, from 0, in float64. */
  byIterations: { median: number[]; max: number[]; bound: number[] };
}

export interface Conditioning {
  /** Tokens read. */
  tokens: number;
  /** Positions at which regressions were looked at. */
  positions: number[];
  layers: LayerConditioning[];
}

export interface ConditioningOptions {
  /** Positions to look at, evenly spread, default 16; at most one for each token. */
  positions?: number;
}

/**
 * Reads a text from nothing, in one pass.
 * @param ids tokens of the text
 * @throws RangeError when the model has no layer of Gated KalmaNet, or there is no token
 */
export async function measureConditioning(
  model: CausalLM,
  ids: ArrayLike<number>,
  { positions: count = 16 }: ConditioningOptions = {},
): Promise<Conditioning> {
  checkPositiveInt('measureConditioning', 'positions', count);
  const T = ids.length;
  if (T === 0) throw new RangeError('measureConditioning: there must be a token to read, got none');
  const types = [...new Set(model.config.mixers.map(({ type }) => type))];
  if (!types.includes('gka'))
    throw new RangeError(
      `measureConditioning: the model has no layer of gka, whose conditioning this is; its layers are of ${types.join(', ')}`,
    );
  const positions = [...new Set(Array.from({ length: count }, (_, i) => Math.ceil(((i + 1) * T) / count) - 1))];
  const layers: LayerConditioning[] = [];
  for (const { layer, options, tensors } of watched(model, ids)) {
    const heads = await headsOf(tensors);
    layers.push(layerConditioning(layer, options, heads, positions));
  }
  return { tokens: T, positions, layers };
}

type Tensors = ReturnType<GatedKalmaNet['regressions']>;

interface Watched {
  layer: number;
  options: GatedKalmaNetOptions;
  tensors: Tensors;
}

/** The regressions of every layer; the tensors are the caller's. */
function watched(model: CausalLM, ids: ArrayLike<number>): Watched[] {
  const found: Watched[] = [];
  const tokens = tf.tensor2d(Int32Array.from(ids), [1, ids.length], 'int32');
  model.watchMixers(tokens, (layer, mixer, x) => {
    if (!(mixer instanceof GatedKalmaNet)) return;
    const tensors = mixer.regressions(x);
    for (const tensor of Object.values(tensors)) tf.keep(tensor);
    found.push({ layer, options: mixer.options, tensors });
  });
  tokens.dispose();
  return found;
}

/** A head's inputs, what its decay is beside that of H, and the solutions [T, D]. */
interface Head extends HeadInputs {
  decay: Float64Array;
  solution: Float64Array;
}

/** The heads of [1, T, H, ...] apart, in float64. Frees the tensors. */
async function headsOf(tensors: Tensors): Promise<Head[]> {
  const [, T, H, D] = tensors.q.shape as [number, number, number, number];
  const read = async (x: tf.Tensor) => Float64Array.from(await x.data());
  const [q, k, solution, g, gKk] = await Promise.all(
    [tensors.q, tensors.k, tensors.solution, tensors.g, tensors.gKk].map(read),
  );
  tf.dispose(tensors);
  const ofHead = (x: Float64Array, h: number, width: number) =>
    Float64Array.from({ length: T * width }, (_, i) => x[(Math.floor(i / width) * H + h) * width + (i % width)]);
  return Array.from({ length: H }, (_, h) => ({
    ...{ q: ofHead(q, h, D), k: ofHead(k, h, D), solution: ofHead(solution, h, D) },
    ...{ g: ofHead(gKk, h, 1), decay: ofHead(g, h, 1) },
  }));
}

function layerConditioning(
  layer: number,
  { numIterations, ridgeRatio, solver, headDim: D }: GatedKalmaNetOptions,
  heads: Head[],
  positions: number[],
): LayerConditioning {
  const steps = Math.max(numIterations, 30);
  const samples = heads.flatMap((head) =>
    regressionsAt(head, positions, ridgeRatio).map((regression, i) => ({
      residual: relativeResidual(regression, head.solution.slice(positions[i] * D, (positions[i] + 1) * D)),
      condition: conditionOf(regression),
      curve: chebyshevResiduals(regression, steps),
    })),
  );
  const curve = Array.from({ length: steps + 1 }, (_, n) => spread(samples.map((sample) => sample.curve[n])));
  const bounds = curve.map((_, n) => residualBound(ridgeRatio, n));
  return {
    ...{ layer, heads: heads.length, numIterations, ridgeRatio, solver },
    residual: {
      ...spread(samples.map(({ residual }) => residual)),
      bound: solver === 'exact' ? 0 : bounds[numIterations],
    },
    condition: { ...spread(samples.map(({ condition }) => condition)), bound: (ridgeRatio + 1) / ridgeRatio },
    halfLives: heads.map(({ decay }) => halfLife(decay)),
    byIterations: { median: curve.map(({ median }) => median), max: curve.map(({ max }) => max), bound: bounds },
  };
}

function conditionOf({ H, lambda, q }: Regression): number {
  const { min, max } = extremeEigenvalues(H, q.length);
  return (max + lambda) / (min + lambda);
}

const spread = (numbers: number[]): Spread => ({ median: quantile(numbers, 0.5), max: Math.max(...numbers) });

/** exp(g n) = 1/2 */
function halfLife(decay: Float64Array): HalfLife {
  const tokens = Array.from(decay, (g) => (g === 0 ? Number.POSITIVE_INFINITY : -Math.LN2 / g));
  const [p10, median, p90] = [0.1, 0.5, 0.9].map((p) => quantile(tokens, p));
  return { p10, median, p90 };
}
