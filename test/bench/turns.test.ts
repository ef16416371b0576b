/** Who takes how many turns in a comparison. */
import { expect, test } from 'vitest';
import { type Contestant, takeTurns } from '../../bench/harness.js';

/** Says that each repetition took `ms`, and fails from turn `failsAt` on. */
function contestant(name: string, ms: number, order: string[], failsAt = Infinity): Contestant {
  let turns = 0;
  return {
    name,
    told: { values: [], memoryBytes: 0 },
    ready: async () => undefined,
    async time() {
      if (turns++ >= failsAt) throw new Error(`${name} gave up`);
      order.push(name);
      return ms;
    },
    close: () => undefined,
  };
}

async function turnsOf(reps: number, ...given: [name: string, ms: number, failsAt?: number][]) {
  const order: string[] = [];
  const results = await takeTurns(
    given.map(([name, ms, failsAt]) => contestant(name, ms, order, failsAt)),
    reps,
  );
  const counts = Object.fromEntries([...results].map(([name, { samples }]) => [name, samples.length]));
  return { order, counts, failure: (name: string) => results.get(name)?.failure };
}

test('one of each, then the next', async () => {
  const { order } = await turnsOf(3, ['a', 10], ['b', 20]);
  expect(order.join('')).toBe('ababab');
});

test('a slow one sits out after its budget, and nobody goes on alone', async () => {
  const three = await turnsOf(15, ['a', 1], ['b', 6000], ['c', 2]);
  expect(three.counts).toEqual({ a: 15, b: 3, c: 15 });
  const two = await turnsOf(15, ['a', 1], ['b', 6000]);
  expect(two.counts).toEqual({ a: 3, b: 3 });
});

test('more repetitions are a larger budget', async () => {
  const { counts } = await turnsOf(60, ['a', 1], ['b', 6000]);
  expect(counts).toEqual({ a: 10, b: 10 });
});

test('one that fails is left out with its reason; ours without a peer takes all its turns', async () => {
  const later = await turnsOf(4, ['a', 1], ['b', 1, 2], ['c', 1]);
  expect(later.counts).toEqual({ a: 4, b: 2, c: 4 });
  expect(later.failure('b')).toBe('b gave up');
  const atOnce = await turnsOf(4, ['a', 1], ['b', 1, 0]);
  expect(atOnce.counts).toEqual({ a: 4, b: 0 });
  const single = await turnsOf(4, ['a', 1]);
  expect(single.counts).toEqual({ a: 4 });
});
