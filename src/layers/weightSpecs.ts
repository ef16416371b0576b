/** Shapes of the two weights most layers are made of. */
import type { WeightSpec } from './seqLayer.js';

/** How a layer multiplies by its matrices. */
export interface LinearOption {
  /**
   * `dense` (default), or `bit`: every projection is a `bitLinear`, by ternary weights with a norm of its own, whose scale stands beside the
   * matrix (`q_proj.norm.weight`).
   */
  linear: 'dense' | 'bit';
}

/** `specs`; with `bit` the projections among them, which are the matrices named `*.weight`, are ternary and have a norm each. */
export function withNorms(
  linear: LinearOption['linear'],
  specs: Record<string, WeightSpec>,
): Record<string, WeightSpec> {
  if (linear === 'dense') return specs;
  const matrices = Object.entries(specs).filter(
    ([name, { kind, shape }]) => kind === 'matrix' && shape.length === 2 && name.endsWith('.weight'),
  );
  const ternary = matrices.map(([name, spec]) => [name, { ...spec, ternary: true }]);
  const norms = matrices.map(([name, { shape }]) => [name.replace(/weight$/, 'norm.weight'), normScale(shape[1])]);
  return { ...specs, ...Object.fromEntries([...ternary, ...norms]) };
}

/** A matrix [out, in]. */
export const matrix = (out: number, fanIn: number): WeightSpec => ({ shape: [out, fanIn], kind: 'matrix', fanIn });

/** A bias of `size` outputs, each of which sums over `fanIn` inputs. */
export const bias = (size: number, fanIn: number): WeightSpec => ({ shape: [size], kind: 'bias', fanIn });

/** The scale of a norm over `size` channels. */
export const normScale = (size: number): WeightSpec => ({ shape: [size], kind: 'norm' });

/** Taps of a depthwise convolution, [channels, 1, width] as published. */
export const convTaps = (channels: number, width: number): WeightSpec => ({
  shape: [channels, 1, width],
  kind: 'matrix',
  fanIn: width,
});

/** Width inside a gated unit where none is given, as the published models round it: 8/3 of the model's, up to a multiple of 256. */
export const publishedWidth = (hiddenSize: number): number => 256 * Math.ceil(Math.trunc((hiddenSize * 8) / 3) / 256);

/** A start uniform within +-gain sqrt(6 / (out + in)) (Glorot & Bengio 2010, eq. 16) for a matrix [out, in]. */
export const xavierUniform = (matrix: WeightSpec, gain = 1): WeightSpec => {
  const bound = gain * Math.sqrt(6 / (matrix.shape[0] + matrix.shape[1]));
  return { ...matrix, init: (rng, size) => rng.uniformArray(size, -bound, bound) };
};

/** A start of zeros. */
export const zeros: NonNullable<WeightSpec['init']> = (_, size) => new Float32Array(size);
