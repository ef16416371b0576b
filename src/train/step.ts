/** One update: forward, backward and AdamW over one or more micro-batches. */
import * as tf from '@tensorflow/tfjs';
import { type AdamW, type AdamWGroup, accumulate } from '../chunked/adamW/index.js';
import type { TrainableModel } from '../models/index.js';
import { Rng } from '../rng.js';
import { balance, expertLoad, type Gradients, moveStatistics, splitGradients } from './balance.js';
import type { AnyBatch } from './data/batch.js';
import { objectiveOf } from './objectives/index.js';

/** The parts of an update that a profile tells apart. */
export type Phase = 'forward' | 'backward' | 'update';

/** Numbers of an update. */
export interface UpdateRates {
  learningRate: number;
  /** The peak of the schedule, for weights with a peak of their own (`WeightSpec.learningRate`); default learningRate. */
  peakLearningRate?: number;
  /** Decoupled; norms and biases are spared. */
  weightDecay: number;
  /** Largest global gradient norm; 0 turns clipping off. */
  clipNorm: number;
}

/** How gradients are computed. */
export interface GradientOptions {
  /** Run each block again in the backward pass instead of keeping what it computed; default false. */
  recompute?: boolean;
  /** Decides the masks of dropout; each step and each worker needs its own. Of `trainStep`, default the number of steps done. */
  noise?: string;
  /** Called when a phase begins. */
  onPhase?: (phase: Phase) => void;
}

export type UpdateOptions = UpdateRates & GradientOptions;

export interface StepResult {
  /** Mean loss per target over the micro-batches: nats, of a regressor squared error. */
  loss: number;
  /** Global gradient norm before clipping. */
  gradNorm: number;
  /** The load of the busiest expert over the mean load, in the layer where that is largest; only for a model with experts. */
  expertLoad?: number;
}

/** The loss became NaN or infinite. The weights are those of before the step. */
export class NonFiniteLossError extends Error {
  override readonly name = 'NonFiniteLossError';
  constructor(readonly loss: number) {
    super(`loss is ${loss}`);
  }
}

/**
 * Trains on `batches` as on one big batch (gradients are accumulated, each target counts the same) and updates the weights once.
 * @throws NonFiniteLossError or NonFiniteGradientError before any weight is touched
 */
export async function trainStep(
  model: TrainableModel,
  optimizer: AdamW,
  batches: readonly AnyBatch[],
  options: UpdateOptions,
): Promise<StepResult> {
  const { noise = String(optimizer.state().step) } = options;
  const { loss, grads } = await meanGradients(model, batches, { ...options, noise });
  try {
    const { gradNorm, surplus } = await applyGradients(model, optimizer, grads, options);
    return { loss, gradNorm, expertLoad: expertLoad(model, surplus, batches) };
  } finally {
    tf.dispose(grads);
  }
}

/**
 * The mean loss over all targets of `batches` and its gradient by the weight's name (for a weight of `balanceRates` the sum of the
 * surpluses, of `runningRates` the mean statistic; frozen weights have none); the caller owns the tensors.
 * @throws NonFiniteLossError
 */
export async function meanGradients(
  model: TrainableModel,
  batches: readonly AnyBatch[],
  options: GradientOptions = {},
): Promise<{ loss: number; grads: Gradients }> {
  const shares = targetShares(batches.map(({ numTargets }) => numTargets));
  const rng = new Rng(`training ${options.noise ?? ''}`);
  let total: Gradients = {};
  let loss = 0;
  try {
    for (const [i, batch] of batches.entries()) {
      const { nats, grads } = await lossAndGrads(model, batch, options, rng.split(i));
      options.onPhase?.('update');
      loss += nats * shares[i];
      if (batches.length === 1) total = grads;
      else {
        const { gradients, surpluses, statistics } = splitGradients(model, grads);
        accumulate(total, { ...gradients, ...statistics }, shares[i]);
        accumulate(total, surpluses, 1);
        tf.dispose(grads);
      }
    }
  } catch (error) {
    tf.dispose(total);
    throw error;
  }
  return { loss, grads: total };
}

/** The share of each part in all targets, so that each target counts the same. */
export function targetShares(numTargets: readonly number[]): number[] {
  const all = numTargets.reduce((sum, n) => sum + n, 0);
  return numTargets.map((n) => (all ? n / all : 1 / numTargets.length));
}

/**
 * One update: by AdamW, of the experts' biases by their load, of running statistics by those of the batch.
 * @returns the global gradient norm before clipping, and what `balance` gives
 * @throws NonFiniteGradientError before any weight is touched
 */
export async function applyGradients(
  model: TrainableModel,
  optimizer: AdamW,
  grads: Gradients,
  { learningRate, peakLearningRate = learningRate, weightDecay, clipNorm }: UpdateRates,
): Promise<{ gradNorm: number; surplus: number | undefined }> {
  const groups = (name: string) => groupOf(model, name, peakLearningRate);
  const options = { learningRate, weightDecay, groups, ...(clipNorm > 0 && { clipNorm }) };
  const { gradients, surpluses, statistics } = splitGradients(model, grads);
  const { gradNorm } = await optimizer.step(model.weights, gradients, options);
  moveStatistics(model, statistics);
  return { gradNorm, surplus: await balance(model, surpluses) };
}

/** What the optimizer does differently for one weight. @param peak of the learning rates of all others */
function groupOf(model: TrainableModel, name: string, peak: number): AdamWGroup {
  const own = model.learningRates.get(name);
  return {
    ...(model.noDecay(name) && { weightDecay: 0 }),
    ...(own !== undefined && own < peak && { lrScale: own / peak }),
  };
}

/** The mean loss of a batch and its gradient for every weight that is not frozen, by the weight's name. @throws NonFiniteLossError */
async function lossAndGrads(
  model: TrainableModel,
  batch: AnyBatch,
  { recompute, onPhase }: GradientOptions,
  training: Rng,
): Promise<{ nats: number; grads: Gradients }> {
  onPhase?.('forward');
  const forward = () => {
    const loss = batchLoss(model, batch, { recompute, training });
    onPhase?.('backward');
    return loss;
  };
  const moved = [...model.weights].filter(([name]) => model.learningRates.get(name) !== 0);
  const { value, grads } = tf.tidy(() => {
    const { value, grads } = tf.variableGrads(
      forward,
      moved.map(([, variable]) => variable),
    );
    const named = moved.map(([name, variable]) => [name, grads[variable.name]] as const);
    return { value, grads: Object.fromEntries(named.filter(([, gradient]) => gradient)) };
  });
  const [nats] = await value.data();
  value.dispose();
  if (Number.isFinite(nats)) return { nats, grads };
  tf.dispose(grads);
  throw new NonFiniteLossError(nats);
}

/** Mean loss per target of one batch; `training` is given in training only. */
export function batchLoss(
  model: TrainableModel,
  batch: AnyBatch,
  options: { recompute?: boolean; training?: Rng } = {},
): tf.Scalar {
  return tf.tidy(() => objectiveOf(model).loss(model, batch, options));
}
