/** A worker thread as the main thread sees it. Node only. */
import { Worker } from 'node:worker_threads';
import type { AdamWOptions } from '../../chunked/adamW/index.js';
import type { RunConfig } from '../../config/index.js';
import type { Weights } from '../checkpoint/index.js';
import type { Answer, Arguments, Method } from './replica.js';

/** What a thread needs to build its replica. */
export interface WorkerStart {
  /** Its place among all: 1 and up; the main thread is 0. */
  member: number;
  members: number;
  /** Of the `SharedGradients`. */
  memory: SharedArrayBuffer;
  backend: RunConfig['backend'];
  config: RunConfig['model'];
  weights: Weights;
  adamW: AdamWOptions;
  moments: Weights;
  step: number;
}

/** A message to a thread; the answer is what the method gives. */
export interface Call {
  method: Method;
  args: unknown[];
}

/** A worker thread failed or ended: the run cannot go on. */
export class WorkerError extends Error {
  override readonly name = 'WorkerError';
}

/** Threads load no TypeScript: where this file runs uncompiled (tests), they are of the build. */
const folder = import.meta.url.endsWith('.ts') ? '../../../dist/train/parallel/' : './';
const entry = new URL(`${folder}worker.js`, import.meta.url);

/** One call at a time. However the thread ends, the call at hand and all later ones are rejected with a `WorkerError`. */
export class Thread {
  /** Settles when the replica is built. */
  readonly ready: Promise<unknown>;
  readonly #worker: Worker;
  readonly #name: string;
  #failure: WorkerError | undefined;
  #settle: { resolve: (answer: unknown) => void; reject: (error: WorkerError) => void } | undefined;

  constructor(start: WorkerStart) {
    this.#name = `worker ${start.member} of ${start.members}`;
    this.#worker = new Worker(entry, { workerData: start, name: this.#name });
    this.#worker
      .on('message', (answer) => this.#settle?.resolve(answer))
      .on('messageerror', (error) => this.#fail(`sent what cannot be read: ${error.message}`))
      .on('error', (error: unknown) => this.#fail(`failed: ${error instanceof Error ? error.message : error}`))
      .on('exit', (code) => this.#fail(`ended with exit code ${code}`));
    this.ready = this.#answer();
  }

  call<M extends Method>(method: M, args: Arguments<M>): Promise<Answer<M>> {
    if (this.#failure) return Promise.reject(this.#failure);
    this.#worker.postMessage({ method, args } satisfies Call);
    return this.#answer() as Promise<Answer<M>>;
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  #answer(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
  }

  /** The first cause counts: an error is followed by an exit. */
  #fail(what: string): void {
    this.#failure ??= new WorkerError(`${this.#name} ${what}`);
    this.#settle?.reject(this.#failure);
  }
}
