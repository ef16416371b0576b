/** What a generated task is. */
import type { Rng } from '../../../rng.js';

export interface Task {
  /** Token ids are 0 .. vocabSize - 1, in inputs and targets. */
  vocabSize: number;
  /**
   * Writes one example, a pure function of the random numbers.
   * @param inputs [T], to be filled
   * @param targets [T], full of `IGNORE_INDEX`: what is to be said at each place, where anything is
   */
  write(rng: Rng, inputs: Int32Array, targets: Int32Array): void;
}
