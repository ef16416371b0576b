/**
 * State tracking as word problems of a group (Merrill et al. 2024, https://arxiv.org/abs/2404.08819; with linear recurrences Grazzi et
 * al. 2024, https://arxiv.org/abs/2411.12537): each token is an element, its target the product of all elements so far.
 */
import type { Task } from './task.js';

/** Elements are numbers; `product[a][b]` is a, then b. 0 is the neutral element. */
interface Group {
  product: readonly (readonly number[])[];
}

/** Bits under addition modulo 2: the target is the parity of the ones so far. */
const bits: Group = {
  product: [
    [0, 1],
    [1, 0],
  ],
};

/** Where each of three things comes from; swaps of two are 1, 2 and 3. */
const permutations: readonly (readonly number[])[] = [
  [0, 1, 2],
  [1, 0, 2],
  [2, 1, 0],
  [0, 2, 1],
  [1, 2, 0],
  [2, 0, 1],
];

const s3Group: Group = {
  product: permutations.map((a) =>
    permutations.map((b) => permutations.findIndex((c) => c.every((from, i) => from === a[b[i]]))),
  ),
};

/** Bits; at each place the parity of the ones up to and with it. */
export const parity = (): Task => wordProblem(bits, [0, 1]);

/** Permutations of three things, numbered 0 .. 5; at each place the composition of all up to and with it. */
export const s3 = ({ elements }: { elements: 'all' | 'swaps' }): Task =>
  wordProblem(s3Group, elements === 'all' ? [0, 1, 2, 3, 4, 5] : [1, 2, 3]);

/** Uniform words over `letters`. */
function wordProblem({ product }: Group, letters: readonly number[]): Task {
  return {
    vocabSize: product.length,
    write(rng, inputs, targets) {
      let state = 0;
      for (let t = 0; t < inputs.length; t++) {
        inputs[t] = letters[rng.int(letters.length)];
        state = product[state][inputs[t]];
        targets[t] = state;
      }
    },
  };
}
