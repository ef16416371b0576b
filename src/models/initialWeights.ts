/** How the weights of a model start. */
import * as tf from '@tensorflow/tfjs';
import type { WeightInit } from '../layers/index.js';
import { Rng } from '../rng.js';

/**
 * Matrices, convolution taps and embeddings normal with mean 0 and standard deviation `std`, norms 1, biases 0, unless a weight
 * has a start of its own. Each weight has its own stream of random numbers, named after it: the same seed gives the same weights
 * whatever the order, the backend and the other weights.
 * @param std default: of each matrix 1 / sqrt(its inputs)
 */
export function initialWeights(seed: number | string, std?: number): WeightInit {
  const root = new Rng(seed).split('weights');
  return (name, { shape, kind, init, fanIn }) => {
    const size = tf.util.sizeFromShape(shape);
    if (init) return init(root.split(name), size);
    if (kind === 'matrix') return root.split(name).normalArray(size, std ?? (fanIn ?? shape[shape.length - 1]) ** -0.5);
    if (kind === 'other')
      throw new Error(`initialWeights: ${name} is neither matrix, bias nor norm: its layer must give init`);
    return new Float32Array(size).fill(kind === 'norm' ? 1 : 0);
  };
}
