/** One token after another from a state that has read T of them. */
import * as tf from '@tensorflow/tfjs';
import type { Task } from '../harness.js';
import { H, readStart, type Weights } from './handover.js';

/** Tokens of one run. */
export const TOKENS = 32;

export interface Step {
  /** Its prefix in the handover. */
  name: string;
  /** Computes once what no token changes. */
  prepare(weights: Weights): (u: tf.Tensor, state?: tf.Tensor) => { o: tf.Tensor; state: tf.Tensor };
}

export function stepTask({ name, prepare }: Step): Task {
  return {
    setup: 'ours',
    prepare({ T, handover }) {
      const { weights, u } = readStart(handover, name, T + TOKENS);
      const step = prepare(weights);
      const start = tf.tidy(() => step(tf.slice(u, [0, 0, 0], [1, T, H])).state);
      const tokens = Array.from({ length: TOKENS }, (_, i) => tf.slice(u, [0, T + i, 0], [1, 1, H]));
      return () =>
        tf.tidy(() => {
          let state = start;
          for (const token of tokens) {
            const next = step(token, state);
            next.o.dataSync(); // read, as what comes next would
            state = next.state;
          }
          return undefined;
        });
    },
  };
}
