/** Factors of a bias that changes with the input, by two small networks (FlashBias, https://arxiv.org/abs/2505.12044, Eq. 5). */
import * as tf from '@tensorflow/tfjs';
import { checkGiven, checkPositiveInt } from '../chunked/check.js';
import { factorProduct } from '../chunked/flashAttention/factors.js';
import { AdamW } from '../chunked/index.js';
import { Rng } from '../rng.js';
import type { BiasFactors } from './factors.js';

/** Weights of one network: [in, hidden], [hidden, hidden], [hidden, H * R]. */
export type FactorNetwork = readonly [w0: tf.Tensor, w1: tf.Tensor, w2: tf.Tensor];

/** x [B, T, in] -> tanh(tanh(x w0) w1) w2 as [B, T, H, R]: three layers without biases, each token by itself. Differentiable. */
export function networkFactors(x: tf.Tensor, weights: FactorNetwork, numHeads: number): tf.Tensor {
  const [w0, w1, w2] = weights as readonly tf.Tensor2D[];
  const [B, T, I] = x.shape as [number, number, number];
  if (x.rank !== 3 || I !== w0.shape[0])
    throw new RangeError(`networkFactors: x must have shape [B,T,${w0.shape[0]}], got [${x.shape}]`);
  if (w2.shape[1] % numHeads !== 0)
    throw new RangeError(`networkFactors: numHeads must divide the ${w2.shape[1]} outputs, got ${numHeads}`);
  return tf.tidy(() => {
    const first = tf.tanh(tf.matMul(x.reshape([B * T, I]), w0));
    const outputs = tf.matMul(tf.tanh(tf.matMul(first as tf.Tensor2D, w1)), w2);
    return outputs.reshape([B, T, numHeads, w2.shape[1] / numHeads]);
  });
}

/** What is known of queries and keys, and the bias that their factors are to make. */
export interface NeuralExample {
  /** [B, T, in] */
  xQ: tf.Tensor;
  /** [B, S, in], default xQ. */
  xK?: tf.Tensor;
  /** [B or 1, H or 1, T, S] */
  bias: tf.Tensor;
}

export interface NeuralFitOptions {
  /** Numbers in each factor. */
  rank: number;
  /** Default that of the bias. */
  numHeads?: number;
  /** Width of both hidden layers, default 256. */
  hidden?: number;
  /** Default 10000, as published. */
  steps?: number;
  /** Of Adam, default 1e-3. */
  learningRate?: number;
  /** The learning rate is multiplied by `factor` after `every` steps, default 0.95 after 50. */
  decay?: { factor: number; every: number };
  /** Of the start, default 0. */
  seed?: number;
  /** Called after each step with the mean squared error before it. */
  onStep?: (step: number, loss: number) => void;
}

/** Two networks that were fitted; the caller disposes of them. */
export interface NeuralFactors {
  /** Factors of other inputs of the same kind; differentiable. */
  factors(xQ: tf.Tensor, xK?: tf.Tensor): BiasFactors;
  q: FactorNetwork;
  k: FactorNetwork;
  /** Mean squared error before each step. */
  losses: number[];
  dispose(): void;
}

/**
 * Fits both networks by Adam to the mean of (phiQ phiK^T - bias)^2.
 * @param example one, or a function of the step (from 0) that makes one; what it makes is disposed after the step
 */
export async function fitNeuralFactors(
  example: NeuralExample | ((step: number) => NeuralExample),
  options: NeuralFitOptions,
): Promise<NeuralFactors> {
  const { steps = 10_000, learningRate = 1e-3, decay = { factor: 0.95, every: 50 }, onStep } = options;
  checkPositiveInt('fitNeuralFactors', 'steps', steps);
  const at = typeof example === 'function' ? example : () => example;
  const { numHeads, weights } = tf.tidy(() => start(at(0), options));
  const [q, k] = [0, 3].map((i) => weights.slice(i, i + 3) as unknown as FactorNetwork);
  const optimizer = new AdamW({ betas: [0.9, 0.999] });
  const named = new Map(weights.map((w, i) => [String(i), w]));
  const losses: number[] = [];
  try {
    for (let step = 0; step < steps; step++) {
      const { value, grads } = tf.tidy(() => gradients(at(step), weights, numHeads));
      const rate = learningRate * decay.factor ** Math.floor(step / decay.every);
      await optimizer.step(named, grads, { learningRate: rate, weightDecay: 0 });
      const [loss] = await value.data();
      tf.dispose([value, grads]);
      losses.push(loss);
      onStep?.(step, loss);
    }
  } finally {
    optimizer.dispose();
  }
  return {
    factors: (xQ, xK = xQ) => ({ phiQ: networkFactors(xQ, q, numHeads), phiK: networkFactors(xK, k, numHeads) }),
    ...{ q, k, losses },
    dispose: () => tf.dispose(weights),
  };
}

/** The mean squared error of factors. */
export function factorError({ phiQ, phiK }: BiasFactors, bias: tf.Tensor): tf.Scalar {
  return tf.tidy(() => tf.mean(tf.square(tf.sub(factorProduct(phiQ, phiK), bias))) as tf.Scalar);
}

/** Uniform within +-1/sqrt(inputs), as PyTorch's linear layers start. */
function start({ xQ, xK = xQ, bias }: NeuralExample, { rank, hidden = 256, seed = 0, ...options }: NeuralFitOptions) {
  checkGiven('fitNeuralFactors', { xQ, bias });
  const numHeads = options.numHeads ?? (bias.shape[1] as number);
  for (const [name, n] of Object.entries({ rank, hidden, numHeads })) checkPositiveInt('fitNeuralFactors', name, n);
  const rng = new Rng(seed);
  const matrix = (name: string, rows: number, cols: number) => {
    const values = rng.split(name).uniformArray(rows * cols, -(rows ** -0.5), rows ** -0.5);
    return tf.variable(tf.tensor2d(values, [rows, cols]));
  };
  const weights = [xQ, xK].flatMap((x, n) => [
    matrix(`${n}.0`, x.shape[2] as number, hidden),
    matrix(`${n}.1`, hidden, hidden),
    matrix(`${n}.2`, hidden, numHeads * rank),
  ]);
  return { numHeads, weights };
}

function gradients({ xQ, xK = xQ, bias }: NeuralExample, weights: tf.Variable[], numHeads: number) {
  const loss = () => {
    const [q, k] = [0, 3].map((i) => weights.slice(i, i + 3) as unknown as FactorNetwork);
    return factorError({ phiQ: networkFactors(xQ, q, numHeads), phiK: networkFactors(xK, k, numHeads) }, bias);
  };
  const { value, grads } = tf.variableGrads(loss, weights);
  return { value, grads: Object.fromEntries(weights.map((w, i) => [String(i), grads[w.name]])) };
}
