/** How the weights of a model start. */
import * as tf from '@tensorflow/tfjs';
import type { WeightInit } from '../layers/index.js';
import { Rng } from '../rng.js';
import type { ModelConfig } from './config.js';

/**
 * Matrices, convolution taps and embeddings normal with mean 0 and standard deviation `std`, norms 1, biases 0, unless a weight
 * has a start of its own. Each weight has its own stream of random numbers, named after it: the same seed gives the same weights
 * whatever the order, the backend and the other weights.
 * @param std default: of each matrix 1 / sqrt(its inputs)
 * @param factor of the standard deviation, by the name of the weight; default 1
 */
export function initialWeights(
  seed: number | string,
  std?: number,
  factor: (name: string) => number = () => 1,
): WeightInit {
  const root = new Rng(seed).split('weights');
  return (name, { shape, kind, init, fanIn }) => {
    const size = tf.util.sizeFromShape(shape);
    if (init) return init(root.split(name), size);
    if (kind === 'matrix')
      return root.split(name).normalArray(size, factor(name) * (std ?? (fanIn ?? shape[shape.length - 1]) ** -0.5));
    if (kind === 'other')
      throw new Error(`initialWeights: ${name} is neither matrix, bias nor norm: its layer must give init`);
    return new Float32Array(size).fill(kind === 'norm' ? 1 : 0);
  };
}

/**
 * `factor` of `initialWeights`: 1 / sqrt(2 numLayers) for the projection at the end of a channel mixer where its layer has the mixer `mlgru`
 * or `mlp.type` is `bit_glu`, so that a sum over all layers starts as large as one (https://github.com/ridgerchu/matmulfreellm); else 1.
 * The float twin of a MatMul-free model, mixers `mlgru` with a SwiGLU, starts as it does.
 */
export function startFactor({ mixers, mlp, numLayers }: ModelConfig): (name: string) => number {
  return (name) => {
    const layer = /^model\.layers\.(\d+)\.mlp\.down_proj\.weight$/.exec(name)?.[1];
    const published = layer && (mlp.type === 'bit_glu' || mixers[Number(layer)].type === 'mlgru');
    return published ? (2 * numLayers) ** -0.5 : 1;
  };
}
