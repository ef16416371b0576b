/** Diagonal state spaces in chunks, plain TensorFlow.js ops: real matrix products, linear in T. */
import * as tf from '@tensorflow/tfjs';
import { cutEnd, pad } from '../chunks.js';
import { unstack } from '../unstack.js';
import { add, type Complex, counted, joined, map, moved, parts, powers, times, transition } from './complex.js';
import { inputWeights, read, type StateForm, type StateInputs, withSkip } from './states.js';

/** A whole number of chunks for each sequence; `last`: tokens of the final chunk. */
interface Cut {
  chunks: number;
  Q: number;
  last: number;
}

/** README, section 3: inside a chunk a product with the local kernel, between chunks the states. */
export const chunkDiagonalSsm: StateForm = (inputs, { factor, chunkSize, final }) => {
  const { u, zeta, initialState } = inputs;
  const [B, T, H] = u.shape;
  const Q = Math.min(chunkSize, T);
  const chunks = Math.ceil(T / Q);
  const cut = { chunks, Q, last: T - (chunks - 1) * Q };
  const bbar = inputWeights(inputs);
  const E = powers(parts(zeta), counted(Q + 1)); // [Q + 1, H, M]
  const whole = pad(u, 1, [0, chunks * Q - T]);
  const tokens = tf.transpose(whole.reshape([B * chunks, Q, H]), [2, 0, 1]); // [H, B * chunks, Q]
  const { before, after } = chunkStates(tokens, zeta, E, bbar, initialState, B, cut);

  const c = parts(inputs.c);
  const out = times(
    map(E, (e) => rows(e, 1, Q)),
    c,
  ); // from the state before a chunk, [Q, H, M]
  const [re, im] = [out.re, out.im].map((x) => tf.transpose(x, [1, 2, 0]));
  const states = tf.sub(tf.matMul(before.re, re), tf.matMul(before.im, im));
  const kernel = read(
    times(
      map(E, (e) => rows(e, 0, Q)),
      bbar,
    ),
    c,
    factor,
  ); // [Q, H]
  const local = tf.matMul(tokens, delayed(tf.transpose(kernel)));
  const o = tf.transpose(tf.add(tf.mul(factor, states), local), [1, 2, 0]).reshape([B, chunks * Q, H]);
  return { o: withSkip(cutEnd(o, 1, T), inputs), ...(final && { finalState: joined(after) }) };
};

/** The final state alone, [B, H, M, 2]. */
export function finalStateOf(
  { u, zeta, initialState, ...inputs }: Pick<StateInputs, 'u' | 'zeta' | 'psi' | 'b' | 'initialState'>,
  chunkSize: number,
): tf.Tensor {
  const [B, T, H] = u.shape;
  const Q = Math.min(chunkSize, T);
  const chunks = Math.ceil(T / Q);
  const tokens = tf.transpose(pad(u, 1, [0, chunks * Q - T]).reshape([B * chunks, Q, H]), [2, 0, 1]);
  const cut = { chunks, Q, last: T - (chunks - 1) * Q };
  const E = powers(parts(zeta), counted(Q + 1));
  return joined(chunkStates(tokens, zeta, E, inputWeights(inputs), initialState, B, cut).after);
}

/** The states before every chunk, [H, B * chunks, M], and after the last token, [B, H, M]. */
function chunkStates(
  tokens: tf.Tensor,
  zeta: tf.Tensor,
  E: Complex,
  bbar: Complex,
  initialState: tf.Tensor | undefined,
  B: number,
  { chunks, Q, last }: Cut,
): { before: Complex; after: Complex } {
  const [H, M] = bbar.re.shape;
  const into = times(
    map(E, (e) => tf.reverse(rows(e, 0, Q), 0)),
    bbar,
  ); // row s: exp((Q - 1 - s) zeta) bbar
  const perChannel = map(into, (x) => tf.transpose(x, [1, 0, 2])); // [H, Q, M]
  const byChunk = (x: tf.Tensor) => unstack(tf.transpose(x, [1, 0, 2]).reshape([B, chunks, H * M]));
  const writes = map2(perChannel, (x) => byChunk(tf.matMul(tokens, x)));
  let x: Complex = initialState ? parts(initialState) : { re: tf.zeros([B, H, M]), im: tf.zeros([B, H, M]) };
  const before = [x];
  const whole = transition(parts(zeta), Q);
  for (let n = 0; n + 1 < chunks; n++) {
    x = add(moved(whole, x), { re: writes.re[n].reshape([B, H, M]), im: writes.im[n].reshape([B, H, M]) });
    before.push(x);
  }
  const join = (part: 're' | 'im') => {
    const all = before.map((state) => state[part].reshape([B, 1, H * M]));
    return tf.transpose(tf.concat(all, 1).reshape([B * chunks, H, M]), [1, 0, 2]);
  };
  // The tokens of the last chunk stand at its start, so that their powers are the last `last` of a chunk's.
  const end = tokens.reshape([H, B, chunks, Q]);
  const lastTokens = tf.slice(end, [0, 0, chunks - 1, 0], [H, B, 1, last]).reshape([H, B, last]);
  const write = map(perChannel, (part) => {
    const own = tf.slice(part, [0, Q - last, 0], [H, last, M]);
    return tf.transpose(tf.matMul(lastTokens, own), [1, 0, 2]);
  });
  return {
    before: { re: join('re'), im: join('im') },
    after: add(moved(last === Q ? whole : transition(parts(zeta), last), x), write),
  };
}

/** Rows start .. start + count - 1 of x [L, H, M]. */
function rows(x: tf.Tensor, start: number, count: number): tf.Tensor {
  return tf.slice(x, [start, 0, 0], [count, ...x.shape.slice(1)]);
}

const map2 = <T>(x: Complex, f: (part: tf.Tensor) => T): { re: T; im: T } => ({ re: f(x.re), im: f(x.im) });

/**
 * [H, Q] -> [H, Q, Q] with k_{t-s} in row s, column t, 0 for t < s: k and Q zeros, repeated and cut into rows one shorter, move on by one from row
 * to row.
 */
function delayed(kernel: tf.Tensor): tf.Tensor {
  const [H, Q] = kernel.shape;
  const repeated = tf.tile(pad(kernel, 1, [0, Q]), [1, Q]);
  const skewed = tf.slice(repeated, [0, 0], [H, Q * (2 * Q - 1)]).reshape([H, Q, 2 * Q - 1]);
  return tf.slice(skewed, [0, 0, 0], [H, Q, Q]);
}
