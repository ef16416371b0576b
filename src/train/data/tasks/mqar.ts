/**
 * Multi-query associative recall (Arora et al. 2023, "Zoology", https://arxiv.org/abs/2312.04927, Sec. 4 and App. E):
 * `k1 v1 k2 v2 ... kn vn`, then each key once more at a random later place, where its value is to be said.
 * Keys are of 1 .. vocabSize / 2 - 1, values of the upper half, neither twice in an example. The rest are random tokens.
 */
import type { Rng } from '../../../rng.js';
import type { MqarSource } from './schema.js';
import type { Task } from './task.js';

type MqarOptions = Pick<MqarSource, 'vocabSize' | 'numPairs' | 'power' | 'randomFiller'>;

/** The least tokens of an example with `numPairs` pairs: two for each, and a place every two tokens for each query. */
export const mqarLength = (numPairs: number): number => 4 * numPairs;

/** The least token ids: a key and a value for each pair, and 0, which is no key. */
export const mqarIds = (numPairs: number): number => 2 * numPairs + 2;

/** @throws RangeError, from `write`, when an example cannot hold its pairs */
export function mqar({ vocabSize, numPairs, power, randomFiller }: MqarOptions): Task {
  const half = Math.floor(vocabSize / 2);
  return {
    vocabSize,
    write(rng, inputs, targets) {
      const n = typeof numPairs === 'number' ? numPairs : numPairs[rng.int(numPairs.length)];
      if (mqarLength(n) > inputs.length || mqarIds(n) > vocabSize)
        throw new RangeError(
          `mqar: ${n} pairs need ${mqarLength(n)} tokens and ${mqarIds(n)} ids, got ${inputs.length} and ${vocabSize}`,
        );
      const keys = distinct(rng, half - 1, n);
      const values = distinct(rng, vocabSize - half, n);
      const places = queryPlaces(rng, (inputs.length - 2 * n) >> 1, n, power);
      for (let i = 2 * n; i < inputs.length; i++) inputs[i] = randomFiller ? rng.int(vocabSize) : 0;
      for (let i = 0; i < n; i++) {
        const [key, value] = [1 + keys[i], half + values[i]];
        inputs[2 * i] = key;
        inputs[2 * i + 1] = value;
        const query = 2 * n + 2 * places[i];
        inputs[query] = key;
        targets[query] = value;
      }
    },
  };
}

/** `n` different numbers of 0 .. size - 1 in random order: the first steps of Fisher-Yates, holding only what was moved. */
function distinct(rng: Rng, size: number, n: number): number[] {
  const moved = new Map<number, number>();
  return Array.from({ length: n }, (_, i) => {
    const j = i + rng.int(size - i);
    const taken = moved.get(j) ?? j;
    moved.set(j, moved.get(i) ?? i);
    return taken;
  });
}

/**
 * `n` different places of 0 .. size - 1, drawn one after another with weights (place + 1)^(power - 1): the highest u^(1 / weight) win,
 * with u uniform (Efraimidis & Spirakis 2006). Compared as log(-log u) - log(weight), lowest first.
 */
function queryPlaces(rng: Rng, size: number, n: number, power: number): number[] {
  const rank = Array.from({ length: size }, (_, place) => {
    const u = 1 - rng.uniform(); // in (0, 1]
    return { place, key: Math.log(-Math.log(u)) + (1 - power) * Math.log(place + 1) };
  });
  return rank
    .sort((a, b) => a.key - b.key)
    .slice(0, n)
    .map(({ place }) => place);
}
