/** A worker thread as the main thread sees it. Node only. */
import { type Transferable, Worker } from 'node:worker_threads';
import { countBlockedThread } from './blocked.js';
import { createPulse, type Pulse, watchPulse } from './pulse.js';

/** A worker thread failed, ended or fell silent: what it was part of cannot go on. */
export class WorkerError extends Error {
  override readonly name = 'WorkerError';
}

type AsyncFunction = (...args: never[]) => Promise<unknown>;

/** The methods of `T` that can be called from another thread: arguments and results can be sent. */
export type Method<T> = { [K in keyof T]: T[K] extends AsyncFunction ? K : never }[keyof T] & string;
export type Arguments<T, K extends Method<T>> = Parameters<Extract<T[K], AsyncFunction>>;
export type Answer<T, K extends Method<T>> = Awaited<ReturnType<Extract<T[K], AsyncFunction>>>;

/** A message to a thread; the answer is what the method gives. */
export interface Call {
  method: string;
  args: unknown[];
}

/** What a thread is started with. */
export interface ThreadStart<Data> {
  data: Data;
  pulse: Pulse;
}

export interface ThreadOptions {
  /** Such as `worker 1 of 2`, for errors. */
  name: string;
  /** What its file finds in `startOf`; sent as a message is. */
  data: unknown;
  transfer?: Transferable[];
  /** Seconds without a sign of life after which the thread is given up, 120 at least while it starts; 0: never. */
  timeout: number;
  /** How the limit is raised, for the error. */
  timeoutOption: string;
}

/** Threads load no TypeScript: where this file runs uncompiled (tests), they are of the build. */
const root = new URL(import.meta.url.endsWith('.ts') ? '../../dist/' : '../', import.meta.url);

/** Seconds that a thread may take to start, whatever its limit: it runs no kernel while it loads its modules. */
const START_SECONDS = 120;

/** A thread that does not end within this time is blocked in native code. */
const GRACE_MS = 2000;

/**
 * A thread that answers calls of the methods of a `T` in it (`answerCalls`), one at a time. However it ends, and when it falls silent, the call at hand and all later
 * ones are rejected with a `WorkerError`.
 */
export class Thread<T> {
  /** Settles when the thread is ready for its first call. */
  readonly ready: Promise<unknown>;
  readonly #worker: Worker;
  readonly #options: ThreadOptions;
  readonly #pulse = createPulse();
  #failure: WorkerError | undefined;
  #settle: { resolve: (answer: unknown) => void; reject: (error: WorkerError) => void } | undefined;

  /** @param file relative to `src`, compiled */
  constructor(file: string, options: ThreadOptions) {
    const { name, data, transfer } = options;
    this.#options = options;
    const workerData = { data, pulse: this.#pulse } satisfies ThreadStart<unknown>;
    const execArgv: string[] = []; // the flags of this process are for its own script: a thread refuses --input-type
    this.#worker = new Worker(new URL(file, root), { workerData, name, execArgv, transferList: transfer });
    this.#worker
      .on('message', (answer) => this.#settle?.resolve(answer))
      .on('messageerror', (error) => this.#fail(`sent what cannot be read: ${error.message}`))
      .on('error', (error: unknown) => this.#fail(`failed: ${error instanceof Error ? error.message : error}`))
      .on('exit', (code) => this.#fail(`ended with exit code ${code}`));
    this.ready = this.#answer('start', options.timeout && Math.max(options.timeout, START_SECONDS));
  }

  call<K extends Method<T>>(method: K, args: Arguments<T, K>): Promise<Answer<T, K>> {
    if (this.#failure) return Promise.reject(this.#failure);
    this.#worker.postMessage({ method, args } satisfies Call);
    return this.#answer(method) as Promise<Answer<T, K>>;
  }

  /** Ends the thread, or gives it up where it is blocked in native code, which nothing but the end of the process ends. */
  async end(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<'blocked'>((resolve) => {
      timer = setTimeout(resolve, GRACE_MS, 'blocked');
    });
    if ((await Promise.race([this.#worker.terminate(), patience])) === 'blocked') {
      countBlockedThread();
      this.#worker.unref();
    }
    clearTimeout(timer);
  }

  async #answer(method: string, seconds = this.#options.timeout): Promise<unknown> {
    const silence = `gave no sign of life for ${seconds} s in its part "${method}" (more patience: ${this.#options.timeoutOption}, 0 for no end)`;
    const unwatch = seconds ? watchPulse(this.#pulse, seconds, () => this.#fail(silence)) : undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.#settle = { resolve, reject };
      });
    } finally {
      unwatch?.();
    }
  }

  /** The first cause counts: an error is followed by an exit. */
  #fail(what: string): void {
    this.#failure ??= new WorkerError(`${this.#options.name} ${what}`);
    this.#settle?.reject(this.#failure);
  }
}
