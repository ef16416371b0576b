/** A state as plain arrays, which can be written to a file or sent to another thread. */
import * as tf from '@tensorflow/tfjs';
import type { LayerState } from '../layers/index.js';

export interface StoredTensor {
  dtype: 'F32' | 'I32';
  shape: number[];
  data: Float32Array | Int32Array;
}

export type StoredLayer = Record<string, StoredTensor>;

export async function storeLayer(state: LayerState): Promise<StoredLayer> {
  const entries = Object.entries(state).map(async ([name, x]) => [name, await stored(x)] as const);
  return Object.fromEntries(await Promise.all(entries));
}

async function stored(x: tf.Tensor): Promise<StoredTensor> {
  const data = (await x.data()).slice() as Float32Array | Int32Array; // a copy: wasm hands out its own memory
  return { dtype: x.dtype === 'int32' ? 'I32' : 'F32', shape: x.shape, data };
}

/** The caller owns the tensors. */
export function restoreLayer(stored: StoredLayer): LayerState {
  return Object.fromEntries(
    Object.entries(stored).map(([name, { dtype, shape, data }]) => [
      name,
      tf.tensor(data, shape, dtype === 'I32' ? 'int32' : 'float32'),
    ]),
  );
}
