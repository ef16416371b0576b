/** Data parallelism: equal replicas of a model in worker threads, which share the rows of each update. Node only. */
import { type AdamW, type AdamWOptions, NonFiniteGradientError } from '../../chunked/adamW/index.js';
import type { RunConfig } from '../../config/index.js';
import type { AnyModel } from '../../models/index.js';
import { type Answer, type Arguments, type Method, Thread, WorkerError } from '../../threads/index.js';
import { expertLoad } from '../balance.js';
import type { AnyBatch } from '../data/index.js';
import type { Score } from '../objectives/index.js';
import { NonFiniteLossError, type StepResult, targetShares, type UpdateOptions } from '../step.js';
import { modelWeights, optimizerMoments } from '../weights.js';
import { dealRows } from './deal.js';
import { type MemoryUse, Replica } from './replica.js';
import { SharedGradients } from './sharedGradients.js';
import type { ReplicaStart } from './start.js';

export interface PoolOptions {
  /** Replicas, the one of this thread included; at least 2. */
  workers: number;
  /** The backend in use here. */
  backend: RunConfig['backend'];
  /** What the optimizer was made with. */
  adamW: AdamWOptions;
  /** Seconds without a sign of life (a kernel run) after which a thread is given up; 0: never. Default 600. */
  timeout?: number;
}

/**
 * A model and its optimizer, and equal ones in worker threads. This thread is worker 0: it does its part of each call, and its model is
 * the one to evaluate, sample and save. Everything that is summed is summed in the order of the workers, so the same number of workers
 * gives the same bits.
 */
export class WorkerPool {
  readonly #replica: Replica;
  readonly #threads: readonly Thread<Replica>[];

  private constructor(replica: Replica, threads: readonly Thread<Replica>[]) {
    this.#replica = replica;
    this.#threads = threads;
  }

  /** Starts the threads with the weights and moments as they are now. @throws WorkerError when one does not start */
  static async start(
    model: AnyModel,
    optimizer: AdamW,
    { workers: members, backend, adamW, timeout = 600 }: PoolOptions,
  ): Promise<WorkerPool> {
    const shared = new SharedGradients(model.weights, members);
    const start: Omit<ReplicaStart, 'member'> = {
      ...{ members, memory: shared.memory, backend, config: model.config, adamW },
      weights: await modelWeights(model),
      moments: await optimizerMoments(optimizer),
      step: optimizer.state().step,
    };
    const threads = Array.from({ length: members - 1 }, (_, i) => {
      const data: ReplicaStart = { ...start, member: i + 1 };
      const name = `worker ${i + 1} of ${members}`;
      return new Thread<Replica>('train/parallel/worker.js', {
        name,
        data,
        timeout,
        timeoutOption: 'train.workerTimeout',
      });
    });
    const pool = new WorkerPool(new Replica(0, model, optimizer, shared), threads);
    try {
      await Promise.all(threads.map(({ ready }) => ready));
    } catch (error) {
      await pool.close();
      throw error;
    }
    return pool;
  }

  /** Batches that are best given to `scores` at a time. */
  get size(): number {
    return this.#threads.length + 1;
  }

  /**
   * `trainStep` with the rows dealt over the workers. It differs from one worker's in the order of sums, that is in the last bits.
   * `onPhase` tells of this thread, which waits for the others in 'update'.
   * @throws NonFiniteLossError or NonFiniteGradientError before any weight is touched, WorkerError when a thread has ended or is silent
   */
  async step(
    batches: readonly AnyBatch[],
    { recompute, onPhase, noise, ...rates }: UpdateOptions,
  ): Promise<StepResult> {
    const parts = dealRows(batches, this.size);
    const own = (i: number) => ({ recompute, noise: `${noise ?? this.#replica.steps} worker ${i}` });
    const losses = await this.#call('gradients', (i) => [parts[i], i ? own(i) : { ...own(i), onPhase }]);
    for (const loss of losses) if (!Number.isFinite(loss)) throw new NonFiniteLossError(loss);
    const shares = targetShares(parts.map((part) => part.reduce((sum, { numTargets }) => sum + numTargets, 0)));
    await this.#call('reduce', () => [shares]);
    const [{ gradNorm, surplus, refused }] = await this.#call('update', () => [rates]);
    if (refused) throw new NonFiniteGradientError(refused);
    const loss = losses.reduce((sum, part, i) => sum + part * shares[i], 0);
    return { loss, gradNorm, expertLoad: expertLoad(this.#replica.model, surplus, batches) };
  }

  /** Scores at most `size` batches, a worker each; `withHits` as in `scoreOf`. */
  scores(batches: readonly AnyBatch[], withHits: boolean): Promise<Score[]> {
    return this.#call('score', (i) => [batches[i], withHits], batches.length);
  }

  /** @throws WorkerError unless weights and moments of all workers are equal to the last bit: what is to be saved would be no run's */
  async checkEqual(): Promise<void> {
    const [first, ...others] = await this.#call('fingerprint', () => []);
    const odd = others.findIndex((other) => other !== first);
    if (odd >= 0)
      throw new WorkerError(`the weights of worker ${odd + 1} of ${this.size} are no longer those of the main thread`);
  }

  /** What each worker holds, this thread first. */
  memory(): Promise<MemoryUse[]> {
    return this.#call('memory', () => []);
  }

  /** Ends the threads; model and optimizer of this one stay. */
  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.end()));
  }

  /** Calls a method of the first `members` replicas, all at the same time. */
  #call<M extends Method<Replica>>(
    method: M,
    args: (member: number) => Arguments<Replica, M>,
    members = this.size,
  ): Promise<Answer<Replica, M>[]> {
    const threads = this.#threads.slice(0, members - 1); // first, as this thread's own part blocks it
    const theirs = threads.map((thread, i) => thread.call(method, args(i + 1)));
    const own = this.#replica[method] as unknown as (...args: unknown[]) => Promise<Answer<Replica, M>>;
    return Promise.all([own.apply(this.#replica, args(0)), ...theirs]);
  }
}
