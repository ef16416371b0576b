/** Batches of token sequences out of a stream, at a position that can be saved and sought. */
import { Rng } from '../../rng.js';
import { type Batch, type BatchReader, countTargets, IGNORE_INDEX, type ReaderPosition } from './batch.js';
import type { TokenStream } from './dataset.js';
import { DataError } from './errors.js';
import { firstAbove } from './search.js';

export interface SequenceReaderOptions {
  batchSize: number;
  seqLen: number;
  /**
   * `random` (training): every epoch cuts the stream into windows from a new random phase and takes them in a new random order.
   * No token is an input twice in an epoch; fewer than 2 seqLen at the two ends are left out, others each time.
   * `sequential` (validation): in order, every target of the stream once an epoch.
   */
  mode: 'random' | 'sequential';
  /** Decides phases and orders; needed for `random`. */
  seed?: number | string;
}

/** One epoch: the start of each of its windows, in the order they are taken. */
interface Epoch {
  number: number;
  starts: (index: number) => number;
  size: number;
}

export class SequenceReader implements BatchReader {
  readonly #stream: TokenStream;
  readonly #options: SequenceReaderOptions;
  readonly #rng: Rng | undefined;
  #epoch: Epoch;
  #index = 0;

  /** @throws DataError when the stream is shorter than one sequence and its last target */
  constructor(stream: TokenStream, options: SequenceReaderOptions) {
    const { batchSize, seqLen, mode, seed } = options;
    for (const [name, value] of Object.entries({ batchSize, seqLen }))
      if (!Number.isSafeInteger(value) || value < 1)
        throw new RangeError(`SequenceReader: ${name} must be a positive integer, got ${value}`);
    const { length } = stream.tokens;
    if (length < seqLen + 1)
      throw new DataError(
        `data: a sequence needs ${seqLen + 1} tokens (seqLen ${seqLen} and the last target), got ${length}; lower train.seqLen, or give more text (or a larger data.valFraction, where this is the validation part)`,
      );
    if (mode === 'random' && seed === undefined) throw new RangeError('SequenceReader: mode random needs a seed');
    this.#stream = stream;
    this.#options = options;
    this.#rng = mode === 'random' ? new Rng(seed!) : undefined;
    this.#epoch = this.#openEpoch(0);
  }

  /** Batches of one sequential pass; for random readers, the least number of full batches an epoch has. */
  get batchesPerEpoch(): number {
    const { batchSize, seqLen } = this.#options;
    const { length } = this.#stream.tokens;
    if (!this.#rng) return Math.ceil(sequentialWindows(length, seqLen) / batchSize);
    const latestPhase = Math.min(seqLen, length - seqLen) - 1;
    return Math.floor(Math.floor((length - 1 - latestPhase) / seqLen) / batchSize);
  }

  /** Where the next batch starts. */
  position(): ReaderPosition {
    return { epoch: this.#epoch.number, index: this.#index };
  }

  /** Goes to a position that `position` gave. @throws RangeError when it is none */
  seek({ epoch, index }: ReaderPosition): void {
    const isCount = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0;
    const opened = isCount(epoch) && isCount(index) ? this.#openEpoch(epoch) : undefined;
    if (!opened || index > opened.size)
      throw new RangeError(
        `SequenceReader: a position is { epoch, index } with integers >= 0 and index up to ${opened?.size ?? 'the number of windows'}, got ${JSON.stringify({ epoch, index })}; were data, seqLen or valFraction changed?`,
      );
    this.#epoch = opened;
    this.#index = index;
  }

  /** The next batch. Random readers go over the end of an epoch within a batch; sequential ones end it with a smaller batch. */
  next(): Batch {
    const windows: number[] = [];
    while (windows.length < this.#options.batchSize) {
      if (this.#index === this.#epoch.size) {
        if (!this.#rng && windows.length) break;
        this.#epoch = this.#openEpoch(this.#epoch.number + 1);
        this.#index = 0;
      }
      windows.push(this.#epoch.starts(this.#index++));
    }
    return this.#batch(windows);
  }

  /** The batches of one pass from the start, at most `limit`; does not move the position. Every call gives the same. */
  *pass(limit = Number.POSITIVE_INFINITY): Generator<Batch> {
    const { batchSize } = this.#options;
    const { starts, size } = this.#openEpoch(0);
    for (let first = 0, n = 0; first < size && n < limit; first += batchSize, n++) {
      const rows = Math.min(batchSize, size - first);
      yield this.#batch(Array.from({ length: rows }, (_, i) => starts(first + i)));
    }
  }

  #openEpoch(number: number): Epoch {
    const { seqLen } = this.#options;
    const { length } = this.#stream.tokens;
    if (!this.#rng) {
      const size = sequentialWindows(length, seqLen);
      // the last window ends with the stream, so it may overlap the one before; #batch ignores what was counted
      return { number, size, starts: (index) => Math.min(index * seqLen, length - 1 - seqLen) };
    }
    const rng = this.#rng.split(`epoch ${number}`);
    const phase = rng.int(Math.min(seqLen, length - seqLen));
    const order = rng.permutation(Math.floor((length - 1 - phase) / seqLen));
    return { number, size: order.length, starts: (index) => phase + order[index] * seqLen };
  }

  #batch(windows: readonly number[]): Batch {
    const { seqLen } = this.#options;
    const { tokens, starts } = this.#stream;
    const inputs = new Int32Array(windows.length * seqLen);
    const targets = new Int32Array(windows.length * seqLen);
    const cuts: number[] = [];
    for (const [row, begin] of windows.entries()) {
      const at = row * seqLen;
      inputs.set(tokens.subarray(begin, begin + seqLen), at);
      targets.set(tokens.subarray(begin + 1, begin + 1 + seqLen), at);
      if (!this.#rng && begin % seqLen) targets.fill(IGNORE_INDEX, at, at + seqLen - (begin % seqLen));
      if (starts) cuts.push(...cutRow(starts, begin, seqLen, at, targets));
    }
    const batch: Batch = { inputs, targets, batchSize: windows.length, seqLen, numTargets: countTargets(targets) };
    return starts ? { ...batch, cuSeqlens: Int32Array.from([...cuts, inputs.length]) } : batch;
  }
}

const sequentialWindows = (length: number, seqLen: number) => Math.ceil((length - 1) / seqLen);

/** Ignores the targets of a row that start a document, and gives the offsets in the batch where a document or the row starts. */
function cutRow(starts: Uint32Array, begin: number, seqLen: number, at: number, targets: Int32Array): number[] {
  const cuts = [at];
  for (let d = firstAbove(starts, begin); d < starts.length && starts[d] <= begin + seqLen; d++) {
    const offset = starts[d] - begin; // 1 .. seqLen
    targets[at + offset - 1] = IGNORE_INDEX;
    if (offset < seqLen) cuts.push(at + offset);
  }
  return cuts;
}
