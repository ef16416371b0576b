/** What training and generation need of a tokenizer. */

/** Token ids. Byte tokens are kept as bytes, everything else as int32. */
export type Tokens = Int32Array | Uint8Array;

export interface Tokenizer {
  /** Says which tokenizer a model was trained with: equal ids mean equal tokens. */
  readonly id: string;
  /** Ids are 0 .. vocabSize - 1. */
  readonly vocabSize: number;
  encode(text: string): Int32Array;
  /** Tokens of UTF-8 text given as bytes, without a detour through a string where the tokenizer can. */
  encodeBytes(bytes: Uint8Array): Tokens;
  /** @throws RangeError for an id outside the vocabulary */
  decode(ids: ArrayLike<number>): string;
  /** Decodes tokens one after the other; see `StreamDecoder`. */
  stream(): StreamDecoder;
  /** UTF-8 bytes of text these tokens stand for: what turns nats per token into bits per byte. */
  byteLength(ids: ArrayLike<number>): number;
}

/** The texts of all `push` calls and of `end` are together the decoded text; a character comes once all its tokens are there. */
export interface StreamDecoder {
  push(id: number): string;
  /** What was held back; cut-off characters show as U+FFFD. The decoder can be used again afterwards. */
  end(): string;
}

/** Mean bytes of text per token. bits per byte = nats per token / ln 2 / bytesPerToken. */
export const bytesPerToken = (tokenizer: Tokenizer, ids: ArrayLike<number>): number =>
  tokenizer.byteLength(ids) / ids.length;

/** Throws a RangeError naming the first id that is not one of the tokenizer's. */
export function checkIds({ id: name, vocabSize }: Pick<Tokenizer, 'id' | 'vocabSize'>, ids: ArrayLike<number>): void {
  for (let i = 0; i < ids.length; i++)
    if (!Number.isInteger(ids[i]) || ids[i] < 0 || ids[i] >= vocabSize)
      throw new RangeError(`tokenizer ${name}: ids go from 0 to ${vocabSize - 1}, got ${ids[i]} at position ${i}`);
}
