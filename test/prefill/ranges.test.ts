/** How layers are shared out over cores. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { resolveModelConfig } from '../../src/models/index.js';
import { cutLayers, layerCosts } from '../../src/prefill/ranges.js';

/** The cost of the costliest part, of the best of all cuts. */
function bestOfAll(costs: number[], parts: number): number {
  if (parts === 1) return costs.reduce((sum, cost) => sum + cost, 0);
  const sizes = Array.from({ length: costs.length - parts + 1 }, (_, i) => i + 1);
  return Math.min(...sizes.map((n) => Math.max(bestOfAll(costs.slice(0, n), 1), bestOfAll(costs.slice(n), parts - 1))));
}

test('the ranges hold every layer once, in order, none is empty, and no cut is better', () => {
  const costs = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(costs, fc.nat(), (costs, seed) => {
      const parts = 1 + (seed % costs.length);
      const ranges = cutLayers(costs, parts);
      expect(ranges.length).toBe(parts);
      expect(ranges.flatMap(({ from, to }) => costs.map((_, i) => i).slice(from, to))).toEqual(costs.map((_, i) => i));
      for (const { from, to } of ranges) expect(to).toBeGreaterThan(from);
      const worst = Math.max(...ranges.map(({ from, to }) => bestOfAll(costs.slice(from, to), 1)));
      expect(worst).toBe(bestOfAll(costs, parts));
    }),
  );
});

test('a layer costs its weights and its state, that of a cache by the length of the prompt', () => {
  const config = resolveModelConfig({
    ...{ hiddenSize: 16, numLayers: 2, mlp: { intermediateSize: 24 } },
    mixers: [
      { type: 'softmax_attention', numHeads: 2 },
      { type: 'softmax_attention', numHeads: 2, window: 8 },
    ],
  });
  const weights = 2 * 16 + 4 * 16 * 16 + 3 * 16 * 24; // norms, q k v o, SwiGLU
  const [grows, stays] = layerCosts(config, 1000);
  expect(grows).toBe(weights + 2 * (2 * 16 * 500)); // k and v of 500 tokens
  expect(stays).toBeLessThan(grows / 5);
  expect(layerCosts(config, 2000)).toEqual([weights + 2 * (2 * 16 * 1000), stays]);
});
