/** Timing a layer as a path of ops: its output, or its gradients in u and all weights. */
import * as tf from '@tensorflow/tfjs';
import type { Task } from '../harness.js';
import { readStart, type Weights } from './handover.js';

/** A layer without what comes after the state space. */
export interface Layer {
  /** Its prefix in the handover. */
  name: string;
  /** u [1, T, H] -> [1, T, H] */
  forward(u: tf.Tensor, weights: Weights): tf.Tensor;
}

export function layerTask({ name, forward }: Layer): Task {
  return {
    setup: 'ours',
    prepare({ T, pass, handover }) {
      const { weights, u, gY } = readStart(handover, name, T);
      const names = Object.keys(weights).sort(); // as in Python
      const gradients = tf.grads((x: tf.Tensor, ...xs: tf.Tensor[]) =>
        forward(x, Object.fromEntries(names.map((key, i) => [key, xs[i]]))),
      );
      const run = () =>
        pass === 'fwd' ? [forward(u, weights)] : gradients([u, ...names.map((key) => weights[key])], gY);
      let first = true;
      return () => {
        const results = tf.tidy(run);
        const value = first ? digest(results) : undefined;
        first = false;
        tf.dispose(results);
        return value;
      };
    },
  };
}

/** One number that tells results apart: for each tensor the logarithm of its norm, and its part along cos(0), cos(1), ... */
function digest(tensors: tf.Tensor[]): number {
  return tensors.reduce((sum, x) => {
    let [squares, along] = [0, 0];
    x.dataSync().forEach((value, i) => {
      squares += value * value;
      along += value * Math.cos(i);
    });
    return sum + 0.5 * Math.log(squares) + along / Math.sqrt(squares);
  }, 0);
}
