/** Tokenizers of published models, from their `tokenizer.json`, through the package @huggingface/tokenizers. */
import { Tokenizer as Engine } from '@huggingface/tokenizers';
import { byteStream, utf8Decoder } from './bytes.js';
import { checkIds, type StreamDecoder, type Tokenizer } from './tokenizer.js';

/** The parts of a `tokenizer.json` we look at ourselves. */
export interface TokenizerJson {
  model: { vocab: Record<string, number> | [string, number][]; [key: string]: unknown };
  added_tokens?: { id: number; content: string }[];
  normalizer?: unknown;
  decoder?: { type: string; decoders?: { type: string }[] } | null;
  [key: string]: unknown;
}

/** Ids of a `tokenizer.json`: one more than the largest, added tokens included. */
export function vocabSizeOf({ model, added_tokens: added = [] }: TokenizerJson): number {
  const ids = Array.isArray(model.vocab) ? [model.vocab.length - 1] : Object.values(model.vocab);
  return 1 + [...ids, ...added.map(({ id }) => id)].reduce((a, b) => Math.max(a, b), -1);
}

/** A tokenizer from the content of `tokenizer.json` and, where there is one, `tokenizer_config.json`. No special tokens are added. */
export class HuggingFaceTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly #engine: Engine;
  readonly #json: TokenizerJson;
  /** The bytes of each token when tokens are bytes (GPT-2 style vocabularies), else undefined. */
  readonly #tokenBytes: Uint8Array[] | undefined;

  /** @param id names the tokenizer; a hash of the file is a good one */
  constructor(
    readonly id: string,
    json: TokenizerJson,
    config: object = {},
  ) {
    checkJson(id, json);
    this.#json = {
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      ...json,
    };
    this.#engine = new Engine(this.#json, config);
    this.vocabSize = vocabSizeOf(json);
    if (json.decoder?.type === 'ByteLevel') this.#tokenBytes = bytesOfTokens(json, this.vocabSize);
  }

  encode(text: string): Int32Array {
    const { ids, tokens } = this.#engine.encode(text, { add_special_tokens: false });
    const unknown = ids.findIndex((id: number | null | undefined) => id === undefined || id === null);
    if (unknown >= 0)
      throw new RangeError(
        `tokenizer ${this.id}: no id for ${JSON.stringify(tokens[unknown])}, and no unknown token to stand for it`,
      );
    const out = Int32Array.from(ids);
    this.#checkNothingLost(text, out);
    return out;
  }

  /** @throws TypeError when the bytes are not UTF-8 */
  encodeBytes(bytes: Uint8Array): Int32Array {
    try {
      return this.encode(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      throw new TypeError(
        `tokenizer ${this.id}: expected UTF-8 text, got bytes that are none; convert the file, or use the tokenizer 'bytes'`,
      );
    }
  }

  decode(ids: ArrayLike<number>): string {
    checkIds(this, ids);
    if (ids.length === 0) return '';
    if (this.#tokenBytes) return utf8Decoder().decode(this.#bytesOf(ids));
    return this.#engine.decode(Array.from(ids), { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  }

  stream(): StreamDecoder {
    if (!this.#tokenBytes) return textStream((ids) => this.decode(ids));
    return byteStream((id) => this.#bytesOf([id]));
  }

  byteLength(ids: ArrayLike<number>): number {
    const table = this.#tokenBytes;
    if (!table) return new TextEncoder().encode(this.decode(ids)).length;
    checkIds(this, ids);
    let sum = 0;
    for (let i = 0; i < ids.length; i++) sum += table[ids[i]].length;
    return sum;
  }

  #bytesOf(ids: ArrayLike<number>): Uint8Array {
    checkIds(this, ids);
    const pieces = Array.from(ids, (id) => this.#tokenBytes![id]);
    const out = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      out.set(piece, at);
      at += piece.length;
    }
    return out;
  }

  /** The engine drops a byte that has no token without a word; where tokens are bytes we can see that. */
  #checkNothingLost(text: string, ids: Int32Array): void {
    if (!this.#tokenBytes || this.#json.normalizer) return;
    const [got, want] = [this.byteLength(ids), new TextEncoder().encode(text).length];
    if (got < want)
      throw new RangeError(
        `tokenizer ${this.id}: ${want} bytes of text became tokens of ${got} bytes; the vocabulary lacks some bytes`,
      );
  }
}

function checkJson(id: string, json: TokenizerJson): void {
  const vocab = (json as TokenizerJson | null)?.model?.vocab;
  if (typeof vocab !== 'object' || vocab === null)
    throw new TypeError(
      `tokenizer ${id}: expected the content of a tokenizer.json with model.vocab, got ${JSON.stringify(json)?.slice(0, 60)}`,
    );
}

/** Bytes of each token of a byte-level vocabulary: bytes written as the printable characters GPT-2 gave them. */
function bytesOfTokens({ model, added_tokens: added = [] }: TokenizerJson, size: number): Uint8Array[] {
  const table = Array.from({ length: size }, () => new Uint8Array(0));
  const byteOf = byteCharacters();
  const encoder = new TextEncoder();
  for (const [token, id] of Object.entries(model.vocab as Record<string, number>)) {
    const bytes = Array.from(token, (character) => byteOf.get(character));
    table[id] = bytes.every((b) => b !== undefined) ? Uint8Array.from(bytes as number[]) : encoder.encode(token);
  }
  for (const { id, content } of added) table[id] = encoder.encode(content); // added tokens are plain text
  return table;
}

/** GPT-2's characters for bytes: printable Latin-1 stands for itself, the others count up from U+0100. */
function byteCharacters(): Map<string, number> {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return new Map(Array.from({ length: 256 }, (_, b) => [String.fromCodePoint(printable(b) ? b : next++), b]));
}

/**
 * A stream decoder for tokens whose text depends on their neighbours: the new text is what a longer run of tokens decodes to
 * beyond the shorter one. Held back while it ends in U+FFFD, as a character may still be incomplete.
 */
function textStream(decode: (ids: number[]) => string): StreamDecoder {
  let ids: number[] = [];
  let shown = 0; // tokens at the start of `ids` whose text is out; they stay as context
  const flush = (force: boolean) => {
    const text = decode(ids);
    if (!force && text.endsWith('\ufffd')) return '';
    const fresh = text.slice(decode(ids.slice(0, shown)).length);
    ids = ids.slice(shown);
    shown = ids.length;
    return fresh;
  };
  return {
    push(id) {
      ids.push(id);
      return flush(false);
    },
    end() {
      const rest = ids.length > shown ? flush(true) : '';
      ids = [];
      shown = 0;
      return rest;
    },
  };
}
