/** One update: forward, backward and AdamW over one or more micro-batches. */
import * as tf from '@tensorflow/tfjs';
import { type AdamW, accumulate } from '../chunked/adamW/index.js';
import type { CausalLM } from '../models/index.js';
import type { Batch } from './data/index.js';

export interface UpdateOptions {
  learningRate: number;
  weightDecay: number;
  /** Largest global gradient norm; 0 turns clipping off. */
  clipNorm: number;
}

export interface StepResult {
  /** Mean nats per token over the micro-batches. */
  loss: number;
  /** Global gradient norm before clipping. */
  gradNorm: number;
}

/** The loss became NaN or infinite. The weights are those of before the step. */
export class NonFiniteLossError extends Error {
  constructor(readonly loss: number) {
    super(`loss is ${loss}`);
    this.name = 'NonFiniteLossError';
  }
}

/**
 * Trains on `batches`, whose gradients are averaged (accumulation), and updates the weights once.
 * @throws NonFiniteLossError before any weight is touched
 */
export async function trainStep(
  model: CausalLM,
  optimizer: AdamW,
  batches: Batch[],
  { learningRate, weightDecay, clipNorm }: UpdateOptions,
): Promise<StepResult> {
  const total: Record<string, tf.Tensor> = {};
  try {
    let loss = 0;
    for (const batch of batches) {
      const { value, grads } = lossAndGrads(model, batch);
      const nats = (await value.data())[0];
      value.dispose();
      if (!Number.isFinite(nats)) {
        tf.dispose(grads);
        throw new NonFiniteLossError(nats);
      }
      loss += nats / batches.length;
      if (batches.length === 1) Object.assign(total, grads);
      else {
        accumulate(total, grads, 1 / batches.length);
        tf.dispose(grads);
      }
    }
    const { gradNorm } = await optimizer.step(model.weights, total, {
      learningRate,
      weightDecay,
      clipNorm: clipNorm || undefined,
      groups: (name) => (model.noDecay(name) ? { weightDecay: 0 } : {}),
    });
    return { loss, gradNorm };
  } finally {
    tf.dispose(total);
  }
}

/** The mean loss of a batch and its gradient for every weight, by the weight's name. */
function lossAndGrads(model: CausalLM, batch: Batch): { value: tf.Scalar; grads: Record<string, tf.Tensor> } {
  const variables = [...model.weights.values()];
  const { value, grads } = tf.variableGrads(() => batchLoss(model, batch), variables);
  const named = [...model.weights].map(([name, variable]) => [name, grads[variable.name]] as const);
  return { value, grads: Object.fromEntries(named.filter(([, gradient]) => gradient)) };
}

/** Mean nats per token of one batch: rows of the batch, or packed documents when it carries their offsets. */
export function batchLoss(model: CausalLM, { inputs, targets, batchSize, seqLen, cuSeqlens }: Batch): tf.Scalar {
  const shape: [number, number] = cuSeqlens ? [1, batchSize * seqLen] : [batchSize, seqLen];
  return tf.tidy(() =>
    model.loss(tf.tensor2d(inputs, shape, 'int32'), tf.tensor2d(targets, shape, 'int32'), { cuSeqlens }),
  );
}
