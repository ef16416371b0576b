/** Models of ternary weights for inference: two bits, or 1.6, in place of each float. */
import * as tf from '@tensorflow/tfjs';
import { quantiseWeight } from '../chunked/index.js';
import { type PackedMatrix, packTernary, type TernaryEncoding } from '../formats/ternary.js';
import type { WeightSpec } from '../layers/index.js';
import type { ModelConfig } from './config.js';
import { namedSpecs } from './decoder.js';
import { type NamedArrays, type PackedArrays, WeightsError } from './trainableModel.js';

/** Shapes of all weights that are used through `bitLinear`, by name. */
export function ternaryShapes(config: ModelConfig): Map<string, [number, number]> {
  const ternary = ([, spec]: [string, WeightSpec]) => spec.ternary === true;
  return new Map([...namedSpecs(config)].filter(ternary).map(([name, { shape }]) => [name, shape as [number, number]]));
}

/**
 * The model for inference alone: its ternary matrices rounded and packed, all other weights as they are. On the backend in use, whose
 * sums over a matrix give its scale.
 * @param weights all weights of the model
 * @returns what `new CausalLM(config, { weights, packed })` takes
 * @throws WeightsError for a model without ternary weights, a packed one, or weights that are not of it
 */
export function packModel(
  { config, weights }: { config: ModelConfig; weights: NamedArrays },
  encoding: TernaryEncoding = '2bit',
): { config: ModelConfig; weights: NamedArrays; packed: PackedArrays } {
  if (config.packed) throw new WeightsError(`packModel: the model is packed (${config.packed}) already`);
  const shapes = ternaryShapes(config);
  if (shapes.size === 0)
    throw new WeightsError(
      'packModel: the model has no ternary weights; those with `linear: bit`, the mixer mlgru or `mlp.type: bit_glu` have',
    );
  const packed = new Map<string, PackedMatrix>();
  for (const [name, shape] of shapes) packed.set(name, packMatrix(name, shape, weights, encoding));
  const dense = new Map([...weights].filter(([name]) => !packed.has(name)));
  return { config: { ...config, packed: encoding }, weights: dense, packed };
}

function packMatrix(
  name: string,
  shape: [number, number],
  weights: NamedArrays,
  encoding: TernaryEncoding,
): PackedMatrix {
  const weight = weights.get(name);
  if (!weight || !tf.util.arraysEqual(shape, [...weight.shape]))
    throw new WeightsError(`packModel: ${name} must be [${shape}], got ${weight ? `[${weight.shape}]` : 'none'}`);
  return tf.tidy(() => {
    const { values, scale } = quantiseWeight(tf.tensor2d(weight.data, shape));
    const packing = { encoding };
    return { shape, bytes: packTernary(values.dataSync(), shape, packing), packing, scale: scale.dataSync()[0] };
  });
}
