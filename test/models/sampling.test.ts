/** Choosing a token, against a plain reference that sorts the whole vocabulary. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type SamplingOptions, sampleToken } from '../../src/models/index.js';

/** The tokens that may be drawn, in the order of the draw, with their probabilities. */
function reference(
  logits: number[],
  { temperature = 1, topK = Infinity, topP = 1 }: SamplingOptions,
): [token: number, p: number][] {
  const scaled = logits.map((x) => x / temperature);
  const largest = Math.max(...scaled);
  const weigh = (tokens: number[]): [number, number][] => {
    const weights = tokens.map((token) => Math.exp(scaled[token] - largest));
    const total = weights.reduce((a, b) => a + b, 0);
    return tokens.map((token, i) => [token, weights[i] / total]);
  };
  const byId = logits.map((_, id) => id);
  if (topK >= logits.length && topP === 1) return weigh(byId);
  const kept = weigh(byId.sort((a, b) => scaled[b] - scaled[a] || a - b).slice(0, topK));
  const before = kept.map((_, i) => kept.slice(0, i).reduce((mass, [, p]) => mass + p, 0));
  return weigh(kept.filter((_, i) => i === 0 || before[i] < topP).map(([token]) => token));
}

function drawReference(logits: number[], options: SamplingOptions, uniform: number): number {
  const choices = reference(logits, options);
  const reached = choices.findIndex((_, i) => choices.slice(0, i + 1).reduce((mass, [, p]) => mass + p, 0) > uniform);
  return choices.at(reached)![0]; // -1, where rounding leaves the sum below 1, is the last
}

/** Multiples of 1/1024, so that what differs also differs after exp; some of few values, for ties. */
const logitLists = fc.array(
  fc.oneof(
    fc.integer({ min: -8192, max: 8192 }).map((x) => x / 1024),
    fc.integer({ min: -2, max: 2 }),
  ),
  { minLength: 1, maxLength: 40 },
);
const optionSets: fc.Arbitrary<SamplingOptions> = fc.record(
  {
    temperature: fc.double({ min: 0.1, max: 3, noNaN: true }),
    topK: fc.integer({ min: 1, max: 45 }),
    topP: fc.double({ min: 0.01, max: 1, noNaN: true }),
  },
  { requiredKeys: [] },
);

test('equals the reference for any logits, ties included, and any options', () => {
  fc.assert(
    fc.property(
      logitLists,
      optionSets,
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (logits, options, u) => {
        // where u or topP falls on an edge between two tokens, rounding may decide either way
        const edges = reference(logits, options).map(([, p], i, all) => all.slice(0, i).reduce((m, [, q]) => m + q, p));
        fc.pre(edges.every((edge) => Math.abs(edge - u) > 1e-12));
        const { topP = 1 } = options;
        const full = reference(logits, { ...options, topP: 1 }).map(([, p], i, all) =>
          all.slice(0, i).reduce((m, [, q]) => m + q, p),
        );
        fc.pre(topP === 1 || full.every((edge) => Math.abs(edge - topP) > 1e-12));
        expect(sampleToken(logits, options, u)).toBe(drawReference(logits, options, u));
      },
    ),
    { numRuns: 500, seed: 11 },
  );
});

test.each<SamplingOptions>([
  {},
  { temperature: 0.5 },
  { topK: 3 },
  { topP: 0.8 },
  { topK: 4, topP: 0.7, temperature: 2 },
])('tokens come as often as their probability says: %j', (options) => {
  const logits = [0.3, -1, 2, 2, 0, 1.5, -Infinity, 1];
  const n = 4000;
  const counts = logits.map(() => 0);
  for (let i = 0; i < n; i++) counts[sampleToken(logits, options, (i + 0.5) / n)]++;
  const want = logits.map((_, token) => reference(logits, options).find(([id]) => id === token)?.[1] ?? 0);
  for (const [token, p] of want.entries())
    expect(Math.abs(counts[token] - p * n), `token ${token}`).toBeLessThanOrEqual(1);
});

describe('temperature 0', () => {
  test('takes the likeliest token, of equals the lowest id, whatever the random number', () => {
    fc.assert(
      fc.property(logitLists, optionSets, (logits, options) => {
        const best = logits.indexOf(Math.max(...logits));
        for (const u of [0, 0.5, 0.999]) expect(sampleToken(logits, { ...options, temperature: 0 }, u)).toBe(best);
      }),
      { seed: 3 },
    );
  });

  test('is what low temperatures tend to', () => {
    const logits = [1, 3, 2.9, -5];
    expect(sampleToken(logits, { temperature: 1e-3 }, 0.999)).toBe(1);
    expect(sampleToken(logits, { temperature: Number.MIN_VALUE }, 0.999)).toBe(1);
  });
});

test('the repetition penalty divides positive logits of seen tokens and multiplies the others', () => {
  const greedy = (logits: number[], repetitionPenalty: number, seen: number[]) =>
    sampleToken(logits, { temperature: 0, repetitionPenalty }, 0, new Set(seen));
  expect(greedy([3, 2.9, -1], 1.1, [0])).toBe(1); // 3 / 1.1 < 2.9
  expect(greedy([3, 2.9, -1], 1.03, [0])).toBe(0); // 3 / 1.03 > 2.9
  expect(greedy([-1, -1.05, -2], 1.1, [0])).toBe(1); // -1 * 1.1 < -1.05
  expect(greedy([3, 2.9, -1], 0.5, [1])).toBe(1); // below 1 it encourages
  const logits = [3, 2.9, -1];
  greedy(logits, 2, [0, 1, 2]);
  expect(logits, 'the logits stay').toEqual([3, 2.9, -1]);
});

test('logits that are not numbers are refused', () => {
  expect(() => sampleToken([1, Number.NaN], {}, 0.5)).toThrow(/logit of token 1 is NaN/);
  expect(() => sampleToken([Number.NaN, 1], {}, 0.5)).toThrow(/logit of token 0 is NaN/);
  expect(() => sampleToken([1, Infinity], {}, 0.5)).toThrow(/largest logit must be finite, got Infinity/);
  expect(() => sampleToken([-Infinity, -Infinity], {}, 0.5)).toThrow(/largest logit must be finite, got -Infinity/);
});
