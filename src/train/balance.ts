/**
 * What moves weights but no optimizer: the load of experts, and statistics of batches. Both travel where gradients do.
 *
 * The load (`balanceRates`) is whole numbers that are summed over micro-batches and workers: so the sums, and the biases that follow from
 * their signs, are the same however the rows were dealt. Statistics (`runningRates`) are averaged as gradients are.
 */
import * as tf from '@tensorflow/tfjs';
import { CausalLM, type TrainableModel } from '../models/index.js';
import type { AnyBatch } from './data/index.js';

export type Gradients = Record<string, tf.Tensor>;

/** Gradients by what becomes of them. */
export interface GradientParts {
  /** For the optimizer. */
  gradients: Gradients;
  /** Load of experts (`WeightSpec.balanceRate`). */
  surpluses: Gradients;
  /** Statistics of the batch (`WeightSpec.runningRate`). */
  statistics: Gradients;
}

/** What goes to the optimizer, and what tells of the load or of the batch. */
export function splitGradients(model: TrainableModel, all: Gradients): GradientParts {
  const part = (belongs: (name: string) => boolean) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => belongs(name)));
  return {
    gradients: part((name) => model.isOptimized(name)),
    surpluses: part((name) => model.balanceRates.has(name)),
    statistics: part((name) => model.runningRates.has(name)),
  };
}

/** Moves every running statistic towards that of the batch: w += rate * (statistic - w). */
export function moveStatistics(model: TrainableModel, statistics: Gradients): void {
  for (const [name, statistic] of Object.entries(statistics))
    tf.tidy(() => {
      const weight = model.weights.get(name) as tf.Variable;
      const rate = model.runningRates.get(name) as number;
      weight.assign(tf.add(weight, tf.mul(tf.sub(statistic, weight), rate)));
    });
}

/**
 * Moves every bias against the sign of its expert's surplus (DeepSeek-V3, https://arxiv.org/abs/2412.19437, Sec. 2.1.2):
 * bias_e += rate * sign(mean load - load of e).
 * @returns the largest surplus of all, in choices times the number of experts; undefined for a model without experts
 */
export async function balance(model: TrainableModel, surpluses: Gradients): Promise<number | undefined> {
  let largest: number | undefined;
  for (const [name, surplus] of Object.entries(surpluses)) {
    const values = (await surplus.data()) as Float32Array;
    const rate = model.balanceRates.get(name) as number;
    largest = values.reduce((max, x) => Math.max(max, x), largest ?? 0);
    const step = Float32Array.from(values, (x) => rate * Math.sign(x));
    tf.tidy(() => {
      const bias = model.weights.get(name) as tf.Variable;
      bias.assign(tf.sub(bias, tf.tensor(step, bias.shape)));
    });
  }
  return largest;
}

/** The load of the busiest expert over the mean load, in the layer where that is largest; undefined without experts. */
export function expertLoad(
  model: TrainableModel,
  surplus: number | undefined,
  batches: readonly AnyBatch[],
): number | undefined {
  const moe = model instanceof CausalLM ? model.config.mlp.moe : undefined;
  if (!moe || surplus === undefined) return undefined;
  const tokens = batches.reduce((sum, { inputs }) => sum + inputs.length, 0);
  return 1 + surplus / (tokens * moe.numExpertsPerToken);
}
