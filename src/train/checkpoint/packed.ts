/**
 * Packed ternary matrices in safetensors: for a matrix `name` [O, I] its bytes, U8 [O, bytes of a row], under that name, what it was
 * multiplied by, F32 [1], as `name_scale`, and I, I32 [1], as `name_columns`. The metadata has the encoding as `ternary`.
 */
import { readSafetensors, type SafeTensor, type TensorToWrite, tensorToFloat32 } from '../../formats/safetensors.js';
import { type PackedMatrix, packedRowBytes, type TernaryEncoding } from '../../formats/ternary.js';
import { CheckpointError } from './errors.js';
import type { Weights } from './weights.js';

/** Key of the metadata. */
export const TERNARY = 'ternary';

export function packedTensors(packed: ReadonlyMap<string, PackedMatrix>): Map<string, TensorToWrite> {
  const tensors = new Map<string, TensorToWrite>();
  for (const [name, { shape, bytes, scale }] of packed) {
    tensors.set(name, { dtype: 'U8', shape: [shape[0], bytes.length / shape[0]], data: bytes });
    tensors.set(`${name}_scale`, { dtype: 'F32', shape: [1], data: Float32Array.of(scale) });
    tensors.set(`${name}_columns`, { dtype: 'I32', shape: [1], data: Int32Array.of(shape[1]) });
  }
  return tensors;
}

/**
 * @param file for errors
 * @param encoding as the config has it
 * @returns the matrices, and all other weights as float32
 * @throws CheckpointError when the file is not of that encoding, or its parts do not fit each other
 */
export function decodePacked(
  file: string,
  bytes: Uint8Array,
  encoding: unknown,
): { weights: Weights; packed: Map<string, PackedMatrix> } {
  const { tensors, metadata } = readSafetensors(bytes);
  if (encoding !== metadata[TERNARY])
    throw new CheckpointError(
      `${file}: config.json says that ternary weights are packed as ${encoding}, the file has ${metadata[TERNARY] ?? 'none that are packed'}`,
    );
  const packed = new Map<string, PackedMatrix>();
  const parts = new Set<string>();
  for (const [name, tensor] of tensors) {
    if (tensor.dtype !== 'U8') continue;
    packed.set(name, matrixOf(file, name, tensors, encoding as TernaryEncoding));
    for (const part of [name, `${name}_scale`, `${name}_columns`]) parts.add(part);
  }
  const others = [...tensors].filter(([name]) => !parts.has(name));
  const weights: Weights = new Map(
    others.map(([name, tensor]) => [name, { shape: tensor.shape, data: tensorToFloat32(name, tensor) }]),
  );
  return { weights, packed };
}

function matrixOf(
  file: string,
  name: string,
  tensors: ReadonlyMap<string, SafeTensor>,
  encoding: TernaryEncoding,
): PackedMatrix {
  const { shape, data } = tensors.get(name) as SafeTensor;
  const scale = single(file, `${name}_scale`, 'F32', tensors);
  const columns = single(file, `${name}_columns`, 'I32', tensors);
  const packing = { encoding };
  const [rows, rowBytes] = shape;
  if (!(scale > 0 && scale < Number.POSITIVE_INFINITY))
    throw new CheckpointError(`${file}: ${name}_scale must be positive, got ${scale}`);
  if (shape.length !== 2 || columns < 1 || rowBytes !== packedRowBytes(columns, packing))
    throw new CheckpointError(
      `${file}: ${name} must be [rows, ${packedRowBytes(columns, packing)}] for ${columns} columns as ${encoding}, got [${shape}]`,
    );
  return { shape: [rows, columns], bytes: data as Uint8Array, packing, scale };
}

function single(file: string, name: string, dtype: 'F32' | 'I32', tensors: ReadonlyMap<string, SafeTensor>): number {
  const tensor = tensors.get(name);
  if (tensor?.dtype === dtype && tensor.data.length === 1) return tensor.data[0] as number;
  const got = tensor ? `${tensor.dtype} [${tensor.shape}]` : 'none';
  throw new CheckpointError(`${file}: expected ${name}, ${dtype} [1], got ${got}`);
}
