/** Diagonal state spaces by a parallel scan: all states at once, in log2(T) rounds. */
import * as tf from '@tensorflow/tfjs';
import { pad } from '../chunks.js';
import { add, type Complex, counted, joined, map, parts, powers, times } from './complex.js';
import { inputWeights, read, type StateForm, withSkip } from './states.js';

/**
 * After the round of shift s each x_t holds what the last 2 s tokens wrote: x_t <- x_t + exp(s zeta) x_{t-s} (README, section 2). Transitions are
 * the same at every token, so of the pairs that a scan merges only the second halves are kept. Memory B T H M.
 */
export const scanDiagonalSsm: StateForm = (inputs, { factor, final }) => {
  const { u, zeta, c, initialState } = inputs;
  const [B, T, H] = u.shape;
  const modes = parts(zeta);
  let x: Complex = map(inputWeights(inputs), (b) => tf.mul(b, tf.expandDims(u, 3))); // [B, T, H, M]
  for (let shift = 1; shift < T; shift *= 2) {
    const earlier = map(x, (part) => pad(tokens(part, 0, T - shift), 1, [shift, 0]));
    x = add(x, times(powers(modes, tf.tensor1d([shift])), earlier));
  }
  if (initialState) {
    const start = map(parts(initialState), (part) => tf.expandDims(part, 1));
    x = add(x, times(powers(modes, counted(T, 1)), start));
  }
  const o = withSkip(read(x, parts(c), factor), inputs);
  return { o, ...(final && { finalState: joined(map(x, (part) => tokens(part, T - 1, 1).reshape([B, H, -1]))) }) };
};

/** `count` tokens of x [B, T, H, M] from `start`. */
function tokens(x: tf.Tensor, start: number, count: number): tf.Tensor {
  const [B, , H, M] = x.shape;
  return tf.slice(x, [0, start, 0, 0], [B, count, H, M]);
}
