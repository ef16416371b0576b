/** Between tensors and the plain arrays that checkpoints hold. */
import * as tf from '@tensorflow/tfjs';
import type { AdamW } from '../chunked/adamW/index.js';
import type { TrainableModel } from '../models/index.js';
import type { Weight, Weights } from './checkpoint/index.js';

/** A copy of every model weight. */
export async function modelWeights(model: TrainableModel): Promise<Weights> {
  return copyAll(model.weights);
}

/** A copy of the optimizer's moments: `m.<weight>` and `v.<weight>`. */
export async function optimizerMoments(optimizer: AdamW): Promise<Weights> {
  const { m, v } = optimizer.state();
  const prefixed = (prefix: string, map: Map<string, tf.Tensor>) =>
    [...map].map(([name, x]) => [`${prefix}.${name}`, x] as const);
  return copyAll(new Map([...prefixed('m', m), ...prefixed('v', v)]));
}

/** Moments as saved by `optimizerMoments`, in the form `AdamW.loadState` takes. */
export function momentsFrom(
  saved: Weights,
  step: number,
): { step: number; m: Map<string, tf.Tensor>; v: Map<string, tf.Tensor> } {
  const pick = (prefix: string) => {
    const mine = [...saved].filter(([name]) => name.startsWith(`${prefix}.`));
    return new Map(
      mine.map(([name, { shape, data }]) => [name.slice(prefix.length + 1), tf.tensor(data, shape, 'float32')]),
    );
  };
  return { step, m: pick('m'), v: pick('v') };
}

async function copyAll(tensors: ReadonlyMap<string, tf.Tensor>): Promise<Weights> {
  const entries = [...tensors].map(async ([name, x]) => {
    const data = Float32Array.from((await x.data()) as Float32Array); // a copy: wasm hands out its own memory
    return [name, { shape: x.shape.slice(), data }] as [string, Weight];
  });
  return new Map(await Promise.all(entries));
}
