/**
 * Multi-query associative recall (Arora et al. 2023, "Zoology", https://arxiv.org/abs/2312.04927, Sec. 4 and App. E):
 * `k1 v1 k2 v2 ... kn vn`, then each key once more at a random later place, where its value is to be said.
 * Keys are of 1 .. vocabSize / 2 - 1, values of the upper half, neither twice in an example. The rest are random tokens.
 *
 * Two settings of ours make a memory's entries interfere: keys of several tokens (`keyTokens`), which are alike where they share some,
 * and pairs written more than once (`repeats`), some often and most of them once. A value is asked for at the last token of its key.
 */
import type { Rng } from '../../../rng.js';
import type { MqarSource } from './schema.js';
import type { Task } from './task.js';

type Keys = Pick<MqarSource, 'keyTokens' | 'keyIds' | 'repeats'>;
type MqarOptions = Keys & Pick<MqarSource, 'vocabSize' | 'numPairs' | 'power' | 'randomFiller'>;

/** The least tokens of an example with `numPairs` pairs: a key and a value for each time a pair is written, and as many places for each query. */
export const mqarLength = (numPairs: number, { keyTokens = 1, repeats = 1 }: Partial<Keys> = {}): number =>
  (keyTokens + 1) * (writes(numPairs, repeats) + numPairs);

/** The least token ids: enough to tell the keys apart, a value for each pair, and 0, which is in no key. */
export function mqarIds(numPairs: number, { keyTokens = 1, keyIds }: Partial<Keys> = {}): number {
  const ids = keyIds ?? Math.ceil(numPairs ** (1 / keyTokens) - 1e-9);
  return Math.max(2 * ids + 2, 2 * numPairs - 1);
}

/** @throws RangeError, from `write`, when an example cannot hold its pairs */
export function mqar(options: MqarOptions): Task {
  const { vocabSize, numPairs, keyTokens, repeats, power, randomFiller } = options;
  const half = Math.floor(vocabSize / 2);
  const { keyIds = half - 1 } = options;
  const width = keyTokens + 1;
  return {
    vocabSize,
    write(rng, inputs, targets) {
      const n = typeof numPairs === 'number' ? numPairs : numPairs[rng.int(numPairs.length)];
      const [tokens, ids] = [mqarLength(n, options), mqarIds(n, options)];
      if (tokens > inputs.length || ids > vocabSize)
        throw new RangeError(
          `mqar: ${n} pairs need ${tokens} tokens and ${ids} ids, got ${inputs.length} and ${vocabSize}`,
        );
      const keys = distinct(rng, keyIds ** keyTokens, n).map((key) => digits(key, keyIds, keyTokens));
      const values = distinct(rng, vocabSize - half, n);
      const order = writeOrder(rng, n, writes(n, repeats));
      const start = width * order.length;
      const places = queryPlaces(rng, Math.floor((inputs.length - start) / width), n, power);
      for (let i = start; i < inputs.length; i++) inputs[i] = randomFiller ? rng.int(vocabSize) : 0;
      for (const [i, pair] of order.entries()) inputs.set([...keys[pair], half + values[pair]], width * i);
      for (const [pair, place] of places.entries()) {
        const query = start + width * place;
        inputs.set(keys[pair], query);
        targets[query + keyTokens - 1] = half + values[pair];
      }
    },
  };
}

const writes = (numPairs: number, repeats: number): number => Math.round(numPairs * repeats);

/** The tokens of key number `key`, 1 .. base each. */
const digits = (key: number, base: number, length: number): number[] =>
  Array.from({ length }, (_, i) => 1 + (Math.floor(key / base ** i) % base));

/**
 * Which pair each write is of: each of `n` once, the rest drawn with weights 1 / (pair + 1) (Zipf's law), in random order. Without a
 * rest in the order of their numbers.
 */
function writeOrder(rng: Rng, n: number, count: number): number[] {
  const once = Array.from({ length: n }, (_, pair) => pair);
  if (count === n) return once;
  const below: number[] = [];
  for (const pair of once) below.push((below[pair - 1] ?? 0) + 1 / (pair + 1));
  const drawn = Array.from({ length: count - n }, () => {
    const at = rng.uniform() * below[n - 1];
    return below.findIndex((sum) => at < sum);
  });
  const all = [...once, ...drawn];
  return distinct(rng, count, count).map((at) => all[at]);
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
