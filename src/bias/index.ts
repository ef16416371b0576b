/** Factors of attention biases for `flashBias`: exact ones, those of singular values, and those of small networks. */

export {
  type BiasMatrices,
  type FactorizationError,
  type FactorizeOptions,
  factorizeBias,
} from './factorize.js';
export { type BiasFactors, denseBias, type Learnable, type Lengths } from './factors.js';
export {
  type FactorNetwork,
  factorError,
  fitNeuralFactors,
  type NeuralExample,
  type NeuralFactors,
  type NeuralFitOptions,
  networkFactors,
} from './neural.js';
export {
  type AlibiOptions,
  alibi,
  alibiSlopes,
  type CosineOptions,
  cosine,
  type PolynomialOptions,
  polynomial,
  type SeparableOptions,
  separable,
} from './positional.js';
export {
  gravityMatrix,
  greatCircleMatrix,
  type HaversineInputs,
  haversine,
  type SquaredDistanceInputs,
  type SquaredDistanceOptions,
  squaredDistance,
} from './spatial.js';
export { type SwinNetwork, swinMatrices, type T5Options, t5Bucket, t5CausalBand, t5Matrices } from './tables.js';
