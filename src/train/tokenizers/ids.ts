/** Token ids that stand for nothing else, written as numbers: what generated tasks are made of. */
import { checkIds, type StreamDecoder, type Tokenizer } from './tokenizer.js';

/** Text is ids in decimal with spaces between: `"3 0 5"`. */
export class IdTokenizer implements Tokenizer {
  readonly id: string;

  /** @param vocabSize ids are 0 .. vocabSize - 1 */
  constructor(readonly vocabSize: number) {
    this.id = `ids-${vocabSize}`;
  }

  /** @throws RangeError for what is no id */
  encode(text: string): Int32Array {
    const numbers = text.split(/\s+/).filter(Boolean).map(Number);
    checkIds(this, numbers);
    return Int32Array.from(numbers);
  }

  encodeBytes(bytes: Uint8Array): Int32Array {
    return this.encode(new TextDecoder().decode(bytes));
  }

  decode(ids: ArrayLike<number>): string {
    checkIds(this, ids);
    return Array.from(ids).join(' ');
  }

  /** Each id with a space before it, so that it can follow a prompt. */
  stream(): StreamDecoder {
    return { push: (id) => ` ${this.decode([id])}`, end: () => '' };
  }

  byteLength(ids: ArrayLike<number>): number {
    return this.decode(ids).length;
  }
}
