/**
 * The load of experts in training. It travels where gradients do (see `CausalLM.balanceRates`), as whole numbers that are summed over
 * micro-batches and workers: so the sums, and the biases that follow from their signs, are the same however the rows were dealt.
 */
import * as tf from '@tensorflow/tfjs';
import type { CausalLM } from '../models/index.js';
import type { Batch } from './data/index.js';

export type Gradients = Record<string, tf.Tensor>;

/** What goes to the optimizer, and what tells of the load. */
export function splitGradients(model: CausalLM, all: Gradients): { gradients: Gradients; surpluses: Gradients } {
  const part = (loads: boolean) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => model.balanceRates.has(name) === loads));
  return { gradients: part(false), surpluses: part(true) };
}

/**
 * Moves every bias against the sign of its expert's surplus (DeepSeek-V3, https://arxiv.org/abs/2412.19437, Sec. 2.1.2):
 * bias_e += rate * sign(mean load - load of e).
 * @returns the largest surplus of all, in choices times the number of experts; undefined for a model without experts
 */
export async function balance(model: CausalLM, surpluses: Gradients): Promise<number | undefined> {
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
  model: CausalLM,
  surplus: number | undefined,
  batches: readonly Batch[],
): number | undefined {
  const { moe } = model.config.mlp;
  if (!moe || surplus === undefined) return undefined;
  const tokens = batches.reduce((sum, { inputs }) => sum + inputs.length, 0);
  return 1 + surplus / (tokens * moe.numExpertsPerToken);
}
