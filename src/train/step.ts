/** One update: forward, backward and AdamW over one or more micro-batches. */
import * as tf from '@tensorflow/tfjs';
import { type AdamW, accumulate } from '../chunked/adamW/index.js';
import type { CausalLM } from '../models/index.js';
import { balance, expertLoad, type Gradients, splitGradients } from './balance.js';
import { type Batch, IGNORE_INDEX } from './data/reader.js';

/** The parts of an update that a profile tells apart. */
export type Phase = 'forward' | 'backward' | 'update';

/** Numbers of an update. */
export interface UpdateRates {
  learningRate: number;
  /** Decoupled; norms and biases are spared. */
  weightDecay: number;
  /** Largest global gradient norm; 0 turns clipping off. */
  clipNorm: number;
}

/** How gradients are computed. */
export interface GradientOptions {
  /** Run each block again in the backward pass instead of keeping what it computed; default false. */
  recompute?: boolean;
  /** Called when a phase begins. */
  onPhase?: (phase: Phase) => void;
}

export type UpdateOptions = UpdateRates & GradientOptions;

export interface StepResult {
  /** Mean nats per target over the micro-batches. */
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
  model: CausalLM,
  optimizer: AdamW,
  batches: readonly Batch[],
  options: UpdateOptions,
): Promise<StepResult> {
  const { loss, grads } = await meanGradients(model, batches, options);
  try {
    const { gradNorm, surplus } = await applyGradients(model, optimizer, grads, options);
    return { loss, gradNorm, expertLoad: expertLoad(model, surplus, batches) };
  } finally {
    tf.dispose(grads);
  }
}

/**
 * The mean loss over all targets of `batches` and its gradient by the weight's name (for a weight of `balanceRates` the sum of the
 * surpluses); the caller owns the tensors.
 * @throws NonFiniteLossError
 */
export async function meanGradients(
  model: CausalLM,
  batches: readonly Batch[],
  options: GradientOptions = {},
): Promise<{ loss: number; grads: Gradients }> {
  const shares = targetShares(batches.map(({ numTargets }) => numTargets));
  let total: Gradients = {};
  let loss = 0;
  try {
    for (const [i, batch] of batches.entries()) {
      const { nats, grads } = await lossAndGrads(model, batch, options);
      options.onPhase?.('update');
      loss += nats * shares[i];
      if (batches.length === 1) total = grads;
      else {
        const { gradients, surpluses } = splitGradients(model, grads);
        accumulate(total, gradients, shares[i]);
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
 * One update: by AdamW, and of the experts' biases by their load.
 * @returns the global gradient norm before clipping, and what `balance` gives
 * @throws NonFiniteGradientError before any weight is touched
 */
export async function applyGradients(
  model: CausalLM,
  optimizer: AdamW,
  grads: Gradients,
  { learningRate, weightDecay, clipNorm }: UpdateRates,
): Promise<{ gradNorm: number; surplus: number | undefined }> {
  const groups = (name: string) => (model.noDecay(name) ? { weightDecay: 0 } : {});
  const options = { learningRate, weightDecay, groups, ...(clipNorm > 0 && { clipNorm }) };
  const { gradients, surpluses } = splitGradients(model, grads);
  const { gradNorm } = await optimizer.step(model.weights, gradients, options);
  return { gradNorm, surplus: await balance(model, surpluses) };
}

/** The mean loss of a batch and its gradient for every weight, by the weight's name. @throws NonFiniteLossError */
async function lossAndGrads(
  model: CausalLM,
  batch: Batch,
  { recompute, onPhase }: GradientOptions,
): Promise<{ nats: number; grads: Gradients }> {
  onPhase?.('forward');
  const forward = () => {
    const loss = batchLoss(model, batch, { recompute });
    onPhase?.('backward');
    return loss;
  };
  const { value, grads } = tf.tidy(() => {
    const { value, grads } = tf.variableGrads(forward, [...model.weights.values()]);
    const named = [...model.weights].map(([name, variable]) => [name, grads[variable.name]] as const);
    return { value, grads: Object.fromEntries(named.filter(([, gradient]) => gradient)) };
  });
  const [nats] = await value.data();
  value.dispose();
  if (Number.isFinite(nats)) return { nats, grads };
  tf.dispose(grads);
  throw new NonFiniteLossError(nats);
}

/** Mean nats per target of one batch: rows of the batch, or packed documents when it carries their offsets. */
export function batchLoss(
  model: CausalLM,
  batch: Batch,
  { recompute }: Pick<GradientOptions, 'recompute'> = {},
): tf.Scalar {
  return tf.tidy(() => {
    const { inputs, targets, options } = tensorsOf(batch);
    return model.loss(inputs, targets, { ...options, recompute });
  });
}

/** A batch as `CausalLM.loss` takes it. Where at most half of the places have a target, only these are scored. */
export function tensorsOf({ inputs, targets, batchSize, seqLen, numTargets, cuSeqlens }: Batch) {
  const shape: [number, number] = cuSeqlens ? [1, batchSize * seqLen] : [batchSize, seqLen];
  const sparse = numTargets > 0 && 2 * numTargets <= targets.length;
  const positions = sparse ? Int32Array.from(placesOfTargets(targets)) : undefined;
  return {
    inputs: tf.tensor2d(inputs, shape, 'int32'),
    targets: positions
      ? tf.tensor1d(
          positions.map((place) => targets[place]),
          'int32',
        )
      : tf.tensor2d(targets, shape, 'int32'),
    options: { cuSeqlens, positions },
  };
}

function* placesOfTargets(targets: Int32Array): Generator<number> {
  for (const [place, target] of targets.entries()) if (target !== IGNORE_INDEX) yield place;
}
