/** Gradients of several replicas in memory that all threads share. */
import * as tf from '@tensorflow/tfjs';

type Shapes = ReadonlyMap<string, { size: number; shape: number[] }>;

/**
 * One row of float32 for each member, all weights after one another in the model's order. A step goes `write` by all, `reduce` by all,
 * `read` by all; the caller sees to it that all have done with one before any begins the next.
 */
export class SharedGradients {
  readonly #weights: Shapes;
  readonly #rows: Float32Array[];

  /** @param memory made by another thread's `SharedGradients` for the same weights; default: new */
  constructor(
    weights: Shapes,
    /** At least 2. */
    readonly members: number,
    readonly memory = new SharedArrayBuffer(members * sizeOf(weights) * 4),
  ) {
    const size = sizeOf(weights);
    this.#weights = weights;
    this.#rows = Array.from({ length: members }, (_, i) => new Float32Array(memory, i * size * 4, size));
  }

  /** Copies a member's gradients into its row; weights without one keep what is there. */
  async write(member: number, grads: Record<string, tf.Tensor>): Promise<void> {
    for (const [name, offset] of this.#offsets())
      if (grads[name]) this.#rows[member].set(await grads[name].data(), offset);
  }

  /**
   * Adds up a member's part of the sum, an equal range of the numbers, into the first row: shares[0] * row 0 + shares[1] * row 1 + ...
   * in this order, so the sum depends on the number of members but not on which is done first.
   * @param summed weights whose numbers are added up as they are
   */
  reduce(member: number, shares: readonly number[], summed: { has(name: string): boolean } = new Set()): void {
    const cut = (part: number) => Math.floor((part * this.#rows[0].length) / this.members);
    const [from, to] = [cut(member), cut(member + 1)];
    const [plain, all] = [shares.map(() => 1), shares];
    let [begin, factors] = [from, all];
    for (const [name, offset] of this.#offsets()) {
      const own = summed.has(name) ? plain : all;
      if (own === factors || offset >= to) continue;
      this.#add(begin, Math.max(offset, begin), factors);
      [begin, factors] = [Math.max(offset, begin), own];
    }
    this.#add(begin, to, factors);
  }

  /** Adds up a range of all rows into the first. */
  #add(begin: number, end: number, factors: readonly number[]): void {
    const [total, ...others] = this.#rows.map((row) => row.subarray(begin, end));
    for (const [j, row] of others.entries()) {
      const [before, factor] = [j === 0 ? factors[0] : 1, factors[j + 1]];
      for (let i = 0; i < total.length; i++) total[i] = before * total[i] + factor * row[i];
    }
  }

  /** The sum as tensors, for the weights named. The caller owns them. */
  read(names: ReadonlySet<string>): Record<string, tf.Tensor> {
    const entries = [...this.#offsets()].filter(([name]) => names.has(name));
    return Object.fromEntries(
      entries.map(([name, offset]) => {
        const { size, shape } = this.#weights.get(name)!;
        return [name, tf.tensor(this.#rows[0].subarray(offset, offset + size), shape)];
      }),
    );
  }

  /** Where each weight starts in a row. */
  *#offsets(): Generator<[string, number]> {
    let offset = 0;
    for (const [name, { size }] of this.#weights) {
      yield [name, offset];
      offset += size;
    }
  }
}

function sizeOf(weights: Shapes): number {
  return [...weights.values()].reduce((sum, { size }) => sum + size, 0);
}
