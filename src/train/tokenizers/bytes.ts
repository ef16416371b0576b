/** Every byte of UTF-8 text is a token: 256 ids, no vocabulary file, nothing lost. */
import { checkIds, type StreamDecoder, type Tokenizer } from './tokenizer.js';

/** The byte tokenizer. Any bytes, valid UTF-8 or not, survive `encodeBytes` and `decodeBytes`. */
export class ByteTokenizer implements Tokenizer {
  readonly id = 'bytes';
  readonly vocabSize = 256;

  encode(text: string): Int32Array {
    return Int32Array.from(new TextEncoder().encode(text));
  }

  encodeBytes(bytes: Uint8Array): Uint8Array {
    return bytes;
  }

  decodeBytes(ids: ArrayLike<number>): Uint8Array {
    checkIds(this, ids);
    return Uint8Array.from(ids);
  }

  decode(ids: ArrayLike<number>): string {
    return utf8Decoder().decode(this.decodeBytes(ids));
  }

  stream(): StreamDecoder {
    return byteStream((id) => this.decodeBytes([id]));
  }

  byteLength(ids: ArrayLike<number>): number {
    return ids.length;
  }
}

/** A stream decoder for tokens that are bytes: the platform's decoder holds back what is not yet a character. */
export function byteStream(bytesOf: (id: number) => Uint8Array): StreamDecoder {
  const decoder = utf8Decoder();
  return {
    push: (id) => decoder.decode(bytesOf(id), { stream: true }),
    end: () => decoder.decode(),
  };
}

/** Keeps a byte order mark, which the default decoder would drop. */
export const utf8Decoder = () => new TextDecoder('utf-8', { ignoreBOM: true });
