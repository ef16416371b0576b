/** Golden files of Scatterbrain, whose tensors are [batch, heads, T, dim], as our op takes them: [batch, T, heads, dim]. */
import * as tf from '@tensorflow/tfjs';
import { readGolden } from './golden.js';
import type { Tensors } from './opProperties.js';

const swapped = (x: tf.Tensor): tf.Tensor => tf.transpose(x, [0, 2, 1, 3]);

/** Everything in a file, tensors of tokens in our layout; buckets [batch, heads, rounds, T] become [batch, T, heads, rounds]. */
export function readScatterbrain(file: string): Tensors {
  const tokens = ['q', 'k', 'v', 'gy', 'out', 'grad_q', 'grad_k', 'grad_v', 'x', 'log_phi_q', 'log_phi_k'];
  return Object.fromEntries(
    Object.entries(readGolden(file)).map(([name, x]) => {
      if (tokens.includes(name)) return [name, swapped(x)];
      if (x.rank === 4 && x.dtype === 'int32') return [name, tf.transpose(x, [0, 3, 1, 2])];
      return [name, x];
    }),
  );
}
