/** Heads of k or v that several heads share, set apart by a map of low rank. */
import * as tf from '@tensorflow/tfjs';
import { linear } from '../chunked/index.js';
import { repeatHeads, splitHeads } from './heads.js';
import type { WeightSpec } from './seqLayer.js';
import { matrix, zeros } from './weightSpecs.js';

/** `heads` heads, each shared by `times` heads in a row. */
export interface GroupedHeads {
  heads: number;
  times: number;
  headDim: number;
}

/** Weights of `expandHeads` by their published names. They start as plain sharing. */
export function expansionSpecs(
  name: 'k' | 'v',
  { heads, times, headDim }: GroupedHeads,
  rank: number,
  learnMix: boolean,
): Record<string, WeightSpec> {
  const all = heads * times;
  const init = () =>
    Float32Array.from({ length: all * heads }, (_, i) => +(Math.floor(i / heads / times) === i % heads));
  return {
    [`proj_${name}.linearA.weight`]: matrix(rank, heads * headDim),
    [`proj_${name}.linearB.weight`]: { ...matrix(all * headDim, rank), init: zeros },
    ...(learnMix && { [`${name}_rep`]: { ...matrix(all, heads), init } }),
  };
}

/**
 * `mix x + up silu(down x)`: what every head shares, and what sets it apart.
 * @param x [B, T, heads * headDim]
 * @param weights `down` [rank, heads * headDim]; `up` [heads * times * headDim, rank]; `mix` [heads * times, heads], default: each head
 * `times` times in a row
 * @returns [B, T, heads * times, headDim]
 */
export function expandHeads(
  x: tf.Tensor,
  { heads, times }: GroupedHeads,
  { down, up, mix }: { down: tf.Tensor; up: tf.Tensor; mix?: tf.Tensor },
): tf.Tensor {
  const low = linear({ x, weight: down });
  const own = splitHeads(linear({ x: tf.mul(low, tf.sigmoid(low)), weight: up }), heads * times);
  return tf.add(mix ? mixHeads(splitHeads(x, heads), mix) : repeatHeads(x, heads, times), own);
}

/** x [B, T, G, D], weight [H, G] -> [B, T, H, D] */
function mixHeads(x: tf.Tensor, weight: tf.Tensor): tf.Tensor {
  const mixed = linear({ x: tf.transpose(x, [0, 1, 3, 2]), weight }); // [B, T, D, H]
  return tf.transpose(mixed, [0, 1, 3, 2]);
}
