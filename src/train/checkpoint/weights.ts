/** Named float32 arrays, and their way into and out of safetensors. Runs in the browser too. */
import { readSafetensors, safetensorsParts, type TensorToWrite, tensorToFloat32 } from '../../formats/safetensors.js';

/** One float32 tensor outside of TensorFlow.js: row-major data and its shape. */
export interface Weight {
  shape: number[];
  data: Float32Array;
}

/** Weights by name. */
export type Weights = Map<string, Weight>;

/** A safetensors file of weights, in pieces. BF16 and F16 round to nearest even. @param more tensors beside them, as they are */
export function encodeWeights(
  weights: ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>,
  dtype: 'F32' | 'BF16' | 'F16' = 'F32',
  metadata: Record<string, string> = {},
  more: ReadonlyMap<string, TensorToWrite> = new Map(),
): Uint8Array[] {
  const tensors = new Map<string, TensorToWrite>(more);
  for (const [name, { shape, data }] of weights) tensors.set(name, { dtype, shape, data });
  return safetensorsParts(tensors, metadata);
}

/** The weights of a safetensors file as float32. F32 data are views of `bytes` where alignment allows. */
export function decodeWeights(bytes: Uint8Array): Weights {
  const { tensors } = readSafetensors(bytes);
  return new Map(
    [...tensors].map(([name, tensor]) => [name, { shape: tensor.shape, data: tensorToFloat32(name, tensor) }]),
  );
}
