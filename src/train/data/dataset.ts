/** Documents to tokens, and their split into training and validation. Node only through its sources. */
import type { Tokenizer, Tokens } from '../tokenizers/index.js';
import { DataError } from './errors.js';
import { firstAbove } from './search.js';
import { type DataSource, defaultDocuments, readDocuments, type TextDocument } from './sources.js';

/** A run of tokens. */
export interface TokenStream {
  tokens: Tokens;
  /** Where documents start, rising from 0; absent when everything is one text. */
  starts?: Uint32Array;
  /** UTF-8 bytes of text per token: bits per byte = nats per token / ln 2 / bytesPerToken. */
  bytesPerToken: number;
}

export interface DataConfig {
  source: DataSource;
  /** Share of the tokens, at the end, kept for validation; 0 <= valFraction < 1, default 0.1. */
  valFraction?: number;
  /** `join`: one text, documents divided by a blank line. `separate`: no context and no target across documents. Default by source. */
  documents?: 'join' | 'separate';
}

export interface Dataset {
  train: TokenStream;
  /** Absent when valFraction is 0. */
  validation?: TokenStream;
  numDocuments: number;
}

/**
 * Reads, tokenizes and splits.
 * @param baseDir what relative paths are relative to; default the working directory
 * @param vocabSize of the model, when it is to be checked that every token is below it
 */
export async function loadDataset(
  { source, valFraction = 0.1, documents = defaultDocuments(source) }: DataConfig,
  tokenizer: Tokenizer,
  { baseDir, vocabSize = tokenizer.vocabSize }: { baseDir?: string; vocabSize?: number } = {},
): Promise<Dataset> {
  const texts = await readDocuments(source, baseDir);
  const stream = tokenizeDocuments(texts, tokenizer, documents);
  checkTokens(stream.tokens, vocabSize);
  return { ...splitStream(stream, valFraction, tokenizer), numDocuments: texts.length };
}

/** All documents as one stream of tokens. */
export function tokenizeDocuments(
  texts: readonly TextDocument[],
  tokenizer: Tokenizer,
  documents: 'join' | 'separate',
): TokenStream {
  const full = texts.filter(({ bytes }) => bytes.length > 0);
  if (full.length === 0) throw new DataError('data: expected at least one document with text, got none');
  if (documents === 'join') {
    const gap = new TextEncoder().encode('\n\n');
    const parts = full.flatMap(({ bytes }, i) => (i ? [gap, bytes] : [bytes]));
    const tokens = encode({ name: 'the joined documents', bytes: concat(parts) as Uint8Array }, tokenizer);
    return { tokens, bytesPerToken: tokenizer.byteLength(tokens) / tokens.length };
  }
  const parts = full.map((text) => encode(text, tokenizer)).filter((tokens) => tokens.length > 0);
  const starts = new Uint32Array(parts.length);
  for (let i = 1; i < parts.length; i++) starts[i] = starts[i - 1] + parts[i - 1].length;
  const tokens = concat(parts);
  return { tokens, starts, bytesPerToken: tokenizer.byteLength(tokens) / tokens.length };
}

function encode({ name, bytes }: TextDocument, tokenizer: Tokenizer): Tokens {
  try {
    return tokenizer.encodeBytes(bytes);
  } catch (error) {
    throw new DataError(`data: ${name}: ${(error as Error).message}`);
  }
}

/** Cuts a stream at a token position: the last part is for validation. */
export function splitStream(
  stream: TokenStream,
  valFraction: number,
  tokenizer: Pick<Tokenizer, 'byteLength'>,
): { train: TokenStream; validation?: TokenStream } {
  if (!(valFraction >= 0 && valFraction < 1))
    throw new RangeError(`splitStream: valFraction must be from 0 to below 1, got ${valFraction}`);
  const cut = stream.tokens.length - Math.round(stream.tokens.length * valFraction);
  const train = part(stream, 0, cut, tokenizer);
  return cut === stream.tokens.length
    ? { train }
    : { train, validation: part(stream, cut, stream.tokens.length, tokenizer) };
}

function part(
  { tokens, starts }: TokenStream,
  begin: number,
  end: number,
  tokenizer: Pick<Tokenizer, 'byteLength'>,
): TokenStream {
  const cut = tokens.subarray(begin, end);
  const bytesPerToken = tokenizer.byteLength(cut) / cut.length;
  if (!starts) return { tokens: cut, bytesPerToken };
  const first = firstAbove(starts, begin) - 1; // the document that `begin` lies in
  const inside = starts.subarray(first).filter((start) => start < end);
  return { tokens: cut, starts: inside.map((start) => Math.max(0, start - begin)), bytesPerToken };
}

/** Throws a RangeError naming the first token that is not below `vocabSize`. */
export function checkTokens(tokens: Tokens, vocabSize: number): void {
  const bad = tokens.findIndex((token: number) => token < 0 || token >= vocabSize);
  if (bad >= 0)
    throw new RangeError(
      `data: tokens must be from 0 to ${vocabSize - 1}, got ${tokens[bad]} at position ${bad}; raise the model's vocabSize`,
    );
}

/** Bytes when every part is bytes, int32 otherwise. */
function concat(parts: readonly Tokens[]): Tokens {
  const size = parts.reduce((sum, p) => sum + p.length, 0);
  const out = parts.every((p) => p instanceof Uint8Array) ? new Uint8Array(size) : new Int32Array(size);
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}
