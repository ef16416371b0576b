/** The kernel of diagonal modes in TensorFlow.js ops: runs and trains on every backend. */
import * as tf from '@tensorflow/tfjs';
import { angle } from '../angles.js';
import type { VandermondeInputs } from './index.js';

/** Taps made at a time: memory is H M times this and as much again for every block on the tape. */
const BLOCK = 256;

/** Blocks of taps straight from the definition. */
export function plainVandermonde({ zeta, w }: VandermondeInputs, length: number, factor: number): tf.Tensor {
  const [re, im] = [part(zeta, 0), part(zeta, 1)];
  const [wRe, wIm] = [part(w, 0), part(w, 1)];
  const blocks: tf.Tensor[] = [];
  for (let from = 0; from < length; from += BLOCK) {
    const steps = tf.reshape(tf.range(from, Math.min(length, from + BLOCK)), [1, 1, -1]);
    const size = tf.mul(factor, tf.exp(tf.mul(re, steps)));
    const theta = angle(im, steps);
    const terms = tf.sub(tf.mul(wRe, tf.cos(theta)), tf.mul(wIm, tf.sin(theta)));
    blocks.push(tf.sum(tf.mul(size, terms), 1));
  }
  return tf.concat(blocks, 1);
}

/** Real or imaginary parts, [H, M, 1]. */
const part = (x: tf.Tensor, i: number) => tf.slice(x, [0, 0, i], [-1, -1, 1]);
