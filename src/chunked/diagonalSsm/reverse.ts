/** Both directions by a form that knows one: README, section 6. */
import * as tf from '@tensorflow/tfjs';
import { cutEnd, pad } from '../chunks.js';
import type { StateForm, StateInputs, StateOptions, StateOutput } from './states.js';

/**
 * Beside `run` on the tokens as they come, `run` with cReverse on the tokens backwards, moved on by one: a token does not see itself twice, and
 * its next neighbour counts without a step.
 */
export function bothWays(run: StateForm, inputs: StateInputs, cReverse: tf.Tensor, options: StateOptions): StateOutput {
  const { u, d: _, ...modes } = inputs;
  const back = run({ ...modes, u: tf.reverse(u, 1), c: cReverse }, options).o;
  const later = tf.reverse(cutEnd(pad(back, 1, [1, 0]), 1, u.shape[1] as number), 1);
  return { o: tf.add(run(inputs, options).o, later) };
}
