/** Biases of points in space and on the sphere. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven } from '../chunked/check.js';
import type { BiasFactors } from './factors.js';

export interface SquaredDistanceInputs {
  /** Points of the queries [B or 1, T, d]. */
  x: tf.Tensor;
  /** Points of the keys [B or 1, S, d]; default x. */
  y?: tf.Tensor;
  /** w [B or 1, T, H or 1], of each query and head; default 1. Of any sign. */
  weight?: tf.Tensor;
}

export interface SquaredDistanceOptions {
  /** Default false. True: without the term of the query alone, rank d + 1, which gives the same o; lse is larger by w |x|^2. */
  short?: boolean;
}

/**
 * b_ij = -w_i |x_i - y_j|^2: rank d + 2, w [2 x, -|x|^2, -1] . [y, 1, |y|^2]. Differentiable in points and weights.
 * Centre the points: the squares cancel where they are far from 0.
 */
export function squaredDistance(
  { x, y = x, weight }: SquaredDistanceInputs,
  { short = false }: SquaredDistanceOptions = {},
): BiasFactors {
  checkPoints('squaredDistance', { x, y });
  checkWeight('squaredDistance', weight);
  return tf.tidy(() => {
    const ones = (p: tf.Tensor) => tf.onesLike(firstOf(p));
    const phiQ = tf.concat([tf.mul(2, x), ...(short ? [] : [tf.neg(sumOfSquares(x))]), tf.neg(ones(x))], 2);
    const phiK = tf.concat([y, ...(short ? [] : [ones(y)]), sumOfSquares(y)], 2);
    return { phiQ: weighted(phiQ, weight), phiK: withHeads(phiK) };
  });
}

export interface HaversineInputs {
  /** Latitude and longitude of the queries in radians, [B or 1, T, 2]. */
  x: tf.Tensor;
  /** Of the keys, [B or 1, S, 2]; default x. */
  y?: tf.Tensor;
  /** w [B or 1, T, H or 1]; default 1. */
  weight?: tf.Tensor;
}

/**
 * b_ij = w_i hav(x_i, y_j), where hav is sin^2 of half the angle between two points of the sphere: (1 - n_i . n_j) / 2 for unit vectors
 * n, rank 4. The angle itself, the great-circle distance, has no exact factors; `factorizeBias` finds good ones of rank 3 to 6.
 */
export function haversine({ x, y = x, weight }: HaversineInputs): BiasFactors {
  checkPoints('haversine', { x, y }, 2);
  checkWeight('haversine', weight);
  return tf.tidy(() => {
    const [n, m] = [x, y].map(unitVectors);
    const phiQ = tf.concat([tf.mul(-0.5, n), tf.fill([...n.shape.slice(0, 2), 1], 0.5)], 2);
    return { phiQ: weighted(phiQ, weight), phiK: withHeads(tf.concat([m, tf.onesLike(firstOf(m))], 2)) };
  });
}

/** [.., 2] radians -> [.., 3]. */
function unitVectors(x: tf.Tensor): tf.Tensor {
  const [latitude, longitude] = tf.split(x, 2, 2);
  const flat = tf.cos(latitude);
  return tf.concat([tf.mul(flat, tf.cos(longitude)), tf.mul(flat, tf.sin(longitude)), tf.sin(latitude)], 2);
}

/** Coordinates of each point. */
type Points = ArrayLike<ArrayLike<number>>;

/** 1 / (|x_i - y_j|^2 + epsilon), [T][S]: of no low rank (50 of 256 for 99 % of the energy); factors by `factorizeBias` or `fitNeuralFactors`. */
export function gravityMatrix(x: Points, y: Points = x, epsilon = 0.01): number[][] {
  return pairs(x, y, (p, q) => 1 / (p.reduce((sum, a, n) => sum + (a - q[n]) ** 2, 0) + epsilon));
}

/** The angle between points of the sphere (latitude, longitude in radians), [T][S]: of nearly low rank. */
export function greatCircleMatrix(x: Points, y: Points = x): number[][] {
  return pairs(x, y, ([a, b], [c, d]) => {
    const hav = Math.sin((a - c) / 2) ** 2 + Math.cos(a) * Math.cos(c) * Math.sin((b - d) / 2) ** 2;
    return 2 * Math.asin(Math.sqrt(Math.min(1, hav)));
  });
}

function pairs(x: Points, y: Points, f: (p: number[], q: number[]) => number): number[][] {
  const keys = Array.from(y, (q) => Array.from(q));
  return Array.from(x, (p) => keys.map((q) => f(Array.from(p), q)));
}

const firstOf = (x: tf.Tensor) => tf.slice(x, [0, 0, 0], [-1, -1, 1]);
const sumOfSquares = (x: tf.Tensor) => tf.sum(tf.square(x), 2, true);
/** [B, T, R] -> [B, T, 1, R]. */
const withHeads = (x: tf.Tensor) => tf.expandDims(x, 2);
const weighted = (phi: tf.Tensor, weight: tf.Tensor | undefined) =>
  weight ? tf.mul(withHeads(phi), tf.expandDims(weight, 3)) : withHeads(phi);

function checkPoints(
  name: string,
  points: { x: tf.Tensor; y: tf.Tensor },
  width: number | null = points.x?.shape[2] ?? null,
): void {
  checkGiven(name, points);
  checkDtype(name, points);
  for (const [which, p] of Object.entries(points))
    if (p.rank !== 3 || p.shape[2] !== width)
      throw new RangeError(`${name}: ${which} must have shape [B or 1,*,${width ?? 'd'}], got [${p.shape}]`);
}

function checkWeight(name: string, weight: tf.Tensor | undefined): void {
  checkDtype(name, { weight });
  if (weight && weight.rank !== 3)
    throw new RangeError(`${name}: weight must have shape [B or 1,T,H or 1], got [${weight.shape}]`);
}
