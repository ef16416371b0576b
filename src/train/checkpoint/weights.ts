/** Named float32 arrays, and their way into and out of safetensors. Runs in the browser too. */
import { readSafetensors, safetensorsParts, tensorToFloat32 } from '../../formats/safetensors.js';

/** One float32 tensor outside of TensorFlow.js: row-major data and its shape. */
export interface Weight {
  shape: number[];
  data: Float32Array;
}

/** Weights by name. */
export type Weights = Map<string, Weight>;

/** A safetensors file of weights, in pieces. BF16 and F16 round to nearest even. */
export function encodeWeights(
  weights: ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>,
  dtype: 'F32' | 'BF16' | 'F16' = 'F32',
  metadata: Record<string, string> = {},
): Uint8Array[] {
  const tensors = new Map([...weights].map(([name, { shape, data }]) => [name, { dtype, shape, data }]));
  return safetensorsParts(tensors, metadata);
}

/** The weights of a safetensors file as float32. F32 data are views of `bytes` where alignment allows. */
export function decodeWeights(bytes: Uint8Array): Weights {
  const { tensors } = readSafetensors(bytes);
  return new Map(
    [...tensors].map(([name, tensor]) => [name, { shape: tensor.shape, data: tensorToFloat32(name, tensor) }]),
  );
}
