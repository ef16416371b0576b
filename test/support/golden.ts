/** Reads a golden file (safetensors, float32) and its entry in the manifest beside it. */
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

/** All tensors of a golden file, by name. */
export function readGolden(file: string): Record<string, tf.Tensor> {
  const bytes = readFileSync(new URL(file, folder));
  const headerSize = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + headerSize).toString('utf8')) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors: Record<string, tf.Tensor> = {};
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    if (dtype !== 'F32') throw new Error(`readGolden: ${file} holds ${name} as ${dtype}, expected F32`);
    const raw = bytes.subarray(8 + headerSize + data_offsets[0], 8 + headerSize + data_offsets[1]);
    tensors[name] = tf.tensor(new Float32Array(new Uint8Array(raw).buffer), shape, 'float32');
  }
  return tensors;
}
