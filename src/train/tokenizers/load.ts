/** From the tokenizer entry of a run config to a tokenizer. Node only. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { sumOf } from '../checkpoint/files.js';
import { ByteTokenizer } from './bytes.js';
import { HuggingFaceTokenizer, type TokenizerJson } from './huggingface.js';
import { IdTokenizer } from './ids.js';
import type { Tokenizer } from './tokenizer.js';

export type TokenizerSpec =
  | { type: 'bytes' }
  | { type: 'ids'; vocabSize: number }
  | { type: 'huggingface'; file: string };

/**
 * The tokenizer of a config entry. For `huggingface` the `tokenizer_config.json` beside the file is read too, where there is one.
 * @throws Error naming the file when it is missing or no tokenizer
 */
export function loadTokenizer(spec: TokenizerSpec): Tokenizer {
  if (spec.type === 'bytes') return new ByteTokenizer();
  if (spec.type === 'ids') return new IdTokenizer(spec.vocabSize);
  const { json, sha256 } = readTokenizerFile(spec.file);
  const config = join(dirname(spec.file), 'tokenizer_config.json');
  const id = `huggingface-${sha256.slice(0, 16)}`;
  return new HuggingFaceTokenizer(id, json, existsSync(config) ? (parse(config, readFileSync(config)) as object) : {});
}

/** The content and hash of a `tokenizer.json`. */
export function readTokenizerFile(file: string): { json: TokenizerJson; sha256: string } {
  if (!existsSync(file)) throw new Error(`tokenizer: expected a tokenizer.json at ${file}, found no file`);
  const bytes = readFileSync(file);
  const json = parse(file, bytes) as TokenizerJson;
  if (typeof json?.model?.vocab !== 'object' || json.model.vocab === null)
    throw new Error(`tokenizer: ${file} must be a tokenizer.json with model.vocab`);
  return { json, sha256: sumOf(bytes).sha256 };
}

function parse(file: string, bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new Error(`tokenizer: ${file} is not valid JSON: ${(error as Error).message}`);
  }
}
