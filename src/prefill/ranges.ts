/** Which layers each core of the pipeline takes: the slowest of them sets its pace. */
import * as tf from '@tensorflow/tfjs';
import type { SeqLayer, WeightSpec } from '../layers/index.js';
import { createDecoder } from '../models/decoder.js';
import type { ModelConfig } from '../models/index.js';
import type { LayerRange } from '../models/layerRange.js';

/**
 * Work of each layer for a token: a product for each weight, and two for each number of the mixer's state (it is written and read; a
 * cache is scored and summed), as large as that is in the middle of a prompt.
 */
export function layerCosts(config: ModelConfig, promptTokens: number): number[] {
  return createDecoder(config).blocks.map((block) => {
    const specs = Object.values(block).flatMap((layer: SeqLayer): WeightSpec[] => Object.values(layer.weightSpecs()));
    const weights = specs.reduce((sum, { shape }) => sum + tf.util.sizeFromShape(shape), 0);
    return weights + 2 * (block.mixer.stateSize(1, promptTokens >> 1) / 4);
  });
}

/** Cuts the layers into `parts` ranges in a row, none of them empty, so that the costliest costs least. */
export function cutLayers(costs: readonly number[], parts: number): LayerRange[] {
  const sums = [0];
  for (const cost of costs) sums.push(sums[sums.length - 1] + cost);
  // best[to]: the cheapest way to cut the first `to` layers into as many parts as were counted so far
  let best: Cut[] = sums.map((cost, to) => ({ cost, ranges: [{ from: 0, to }] }));
  for (let part = 2; part <= parts; part++)
    best = best.map((_, to) => {
      const cuts = Array.from({ length: Math.max(to - part + 1, 0) }, (_, i): Cut => {
        const from = part - 1 + i;
        const cost = Math.max(best[from].cost, sums[to] - sums[from]);
        return { cost, ranges: [...best[from].ranges, { from, to }] };
      });
      return cuts.reduce((a, b) => (b.cost < a.cost ? b : a), { cost: Number.POSITIVE_INFINITY, ranges: [] });
    });
  return best[costs.length].ranges;
}

interface Cut {
  /** Of its costliest range. */
  cost: number;
  ranges: LayerRange[];
}
