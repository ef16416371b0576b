/** Reads a golden file (safetensors, float32 or int32) and its entry in the manifest beside it. */
import { readFileSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs';

const folder = new URL('../golden/', import.meta.url);

export interface GoldenEntry {
  file: string;
  op: string;
  config: Record<string, string>;
  inputs: Record<string, number[]>;
  outputs: Record<string, number[]>;
  tolerances: Record<string, { max_abs: number; rel: number; max_ref: number }>;
}

const manifest = JSON.parse(readFileSync(new URL('manifest.json', folder), 'utf8')) as { files: GoldenEntry[] };

/** Entries of the given ops, in the manifest's order. */
export function goldenEntries(...ops: string[]): GoldenEntry[] {
  return manifest.files.filter((f) => ops.includes(f.op));
}

/** Everything in a golden file as plain numbers, by name. */
export function readGoldenNumbers(file: string): Record<string, { shape: number[]; data: Float32Array | Int32Array }> {
  const bytes = readFileSync(new URL(file, folder));
  const headerSize = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + headerSize).toString('utf8')) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const named = Object.entries(header).filter(([name]) => name !== '__metadata__');
  return Object.fromEntries(
    named.map(([name, { dtype, shape, data_offsets }]) => {
      if (dtype !== 'F32' && dtype !== 'I32')
        throw new Error(`readGolden: ${file} holds ${name} as ${dtype}, expected F32 or I32`);
      const raw = bytes.subarray(8 + headerSize + data_offsets[0], 8 + headerSize + data_offsets[1]);
      const { buffer } = new Uint8Array(raw);
      return [name, { shape, data: dtype === 'F32' ? new Float32Array(buffer) : new Int32Array(buffer) }];
    }),
  );
}

/** All tensors of a golden file, by name. */
export function readGolden(file: string): Record<string, tf.Tensor> {
  const numbers = Object.entries(readGoldenNumbers(file));
  return Object.fromEntries(numbers.map(([name, { shape, data }]) => [name, tf.tensor(data, shape)]));
}
