/** Diagonal state spaces, one token at a time: the recurrence itself. */
import * as tf from '@tensorflow/tfjs';
import { unstack } from '../unstack.js';
import { add, type Complex, joined, map, moved, parts, transition } from './complex.js';
import { inputWeights, read, type StateForm, withSkip } from './states.js';

/** x_t = exp(zeta) x_{t-1} + psi b u_t, o_t = factor Re(c x_t) + d u_t (README, section 1). */
export const recurrentDiagonalSsm: StateForm = (inputs, { factor, final }) => {
  const { u, zeta, initialState } = inputs;
  const [B, , H] = u.shape;
  const [c, bbar] = [parts(inputs.c), inputWeights(inputs)];
  const step = transition(parts(zeta), 1);
  let x: Complex = initialState ? parts(initialState) : map(bbar, (b) => tf.zeros([B, ...b.shape]));
  const o = unstack(u).map((token) => {
    const write = map(bbar, (b) => tf.mul(b, token.reshape([B, H, 1])));
    x = add(moved(step, x), write);
    return read(x, c, factor).reshape([B, 1, H]);
  });
  return { o: withSkip(tf.concat(o, 1), inputs), ...(final && { finalState: joined(x) }) };
};
