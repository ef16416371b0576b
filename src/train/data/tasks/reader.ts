/** Batches of generated examples, at a position that can be saved and sought. */
import { Rng } from '../../../rng.js';
import { type Batch, type BatchReader, countTargets, IGNORE_INDEX, type ReaderPosition } from '../batch.js';
import type { Task } from './task.js';

export interface TaskReaderOptions {
  batchSize: number;
  seqLen: number;
  /** Decides every example, together with its number. */
  seed: number | string;
}

/** Example `i` is a pure function of task, seqLen, seed and i, so no two batches of a reader share one. */
export class TaskReader implements BatchReader {
  readonly #task: Task;
  readonly #options: TaskReaderOptions;
  readonly #rng: Rng;
  #index = 0;

  constructor(task: Task, options: TaskReaderOptions) {
    this.#task = task;
    this.#options = options;
    this.#rng = new Rng(options.seed);
  }

  /** Examples taken; there is one epoch without end. */
  position(): ReaderPosition {
    return { epoch: 0, index: this.#index };
  }

  /** Goes to a position that `position` gave. @throws RangeError when it is none */
  seek({ epoch, index }: ReaderPosition): void {
    if (epoch !== 0 || !Number.isSafeInteger(index) || index < 0)
      throw new RangeError(
        `TaskReader: a position is { epoch: 0, index } with an integer index >= 0, got ${JSON.stringify({ epoch, index })}`,
      );
    this.#index = index;
  }

  next(): Batch {
    const batch = this.#batch(this.#index, this.#options.batchSize);
    this.#index += batch.batchSize;
    return batch;
  }

  /** The first `examples` as batches, at most `limit` of them; does not move the position. Every call gives the same. */
  *pass(examples: number, limit = Number.POSITIVE_INFINITY): Generator<Batch> {
    const { batchSize } = this.#options;
    for (let first = 0, n = 0; first < examples && n < limit; first += batchSize, n++)
      yield this.#batch(first, Math.min(batchSize, examples - first));
  }

  #batch(first: number, batchSize: number): Batch {
    const { seqLen } = this.#options;
    const inputs = new Int32Array(batchSize * seqLen);
    const targets = new Int32Array(batchSize * seqLen).fill(IGNORE_INDEX);
    for (let row = 0; row < batchSize; row++) {
      const place = [row * seqLen, (row + 1) * seqLen] as const;
      this.#task.write(
        this.#rng.split(`example ${first + row}`),
        inputs.subarray(...place),
        targets.subarray(...place),
      );
    }
    return { inputs, targets, batchSize, seqLen, numTargets: countTargets(targets) };
  }
}
