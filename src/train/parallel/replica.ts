/** What each of several equal models does of a step. All take the same steps on the same sums, so they stay equal to the last bit. */
import { createHash } from 'node:crypto';
import * as tf from '@tensorflow/tfjs';
import { type AdamW, NonFiniteGradientError } from '../../chunked/adamW/index.js';
import { wasmBytes } from '../../chunked/wasm/runtime.js';
import type { TrainableModel } from '../../models/index.js';
import type { AnyBatch } from '../data/index.js';
import { scoreOf } from '../evaluate.js';
import type { Score } from '../objectives/index.js';
import { applyGradients, type GradientOptions, meanGradients, NonFiniteLossError, type UpdateRates } from '../step.js';
import { modelWeights, optimizerMoments } from '../weights.js';
import type { SharedGradients } from './sharedGradients.js';

/** What TensorFlow.js holds in a thread. */
export interface MemoryUse {
  tensors: number;
  /** Bytes of the tensors. */
  bytes: number;
  /** Size of the wasm memory, which never shrinks; undefined on other backends. */
  wasm: number | undefined;
}

/** A replica's methods: arguments and results can be sent between threads. */
export class Replica {
  #names: ReadonlySet<string> = new Set();

  constructor(
    readonly member: number,
    readonly model: TrainableModel,
    readonly optimizer: AdamW,
    readonly shared: SharedGradients,
  ) {}

  /** Updates done. */
  get steps(): number {
    return this.optimizer.state().step;
  }

  /** The mean loss over this member's batches; its gradients go into shared memory, unless the loss is not finite. */
  async gradients(batches: readonly AnyBatch[], options?: GradientOptions): Promise<number> {
    try {
      const { loss, grads } = await meanGradients(this.model, batches, options);
      await this.shared.write(this.member, grads);
      this.#names = new Set(Object.keys(grads));
      tf.dispose(grads);
      return loss;
    } catch (error) {
      if (error instanceof NonFiniteLossError) return error.loss;
      throw error;
    }
  }

  /** Adds up this member's part of all gradients. */
  async reduce(shares: readonly number[]): Promise<void> {
    this.shared.reduce(this.member, shares, this.model.balanceRates);
  }

  /** The update by the sum. A sum that is not finite is `refused`, with the reason: by all members alike, as all see the same. */
  async update(rates: UpdateRates): Promise<{ gradNorm: number; surplus?: number; refused?: string }> {
    const grads = this.shared.read(this.#names);
    try {
      return await applyGradients(this.model, this.optimizer, grads, rates);
    } catch (error) {
      if (error instanceof NonFiniteGradientError) return { gradNorm: Number.NaN, refused: error.message };
      throw error;
    } finally {
      tf.dispose(grads);
    }
  }

  score(batch: AnyBatch, withHits: boolean): Promise<Score> {
    return scoreOf(this.model, batch, withHits);
  }

  async memory(): Promise<MemoryUse> {
    const { numTensors: tensors, numBytes: bytes } = tf.memory();
    return { tensors, bytes, wasm: wasmBytes() };
  }

  /** Hash of all weights and moments. */
  async fingerprint(): Promise<string> {
    const hash = createHash('sha256');
    for (const arrays of [await modelWeights(this.model), await optimizerMoments(this.optimizer)])
      for (const { data } of arrays.values())
        hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return hash.digest('hex');
  }
}
