/** Text from a model: generation with a tokenizer around it. */
import { type CausalLM, generate, type GenerateOptions } from '../models/index.js';
import type { Tokenizer } from './tokenizers/index.js';

/** The continuation of `prompt` as text, piece by piece; a piece may be empty while a character is not yet complete. */
export async function* streamText(
  model: CausalLM,
  tokenizer: Tokenizer,
  prompt: string,
  options: GenerateOptions,
): AsyncGenerator<string> {
  const ids = tokenizer.encode(prompt);
  if (ids.length === 0) throw new RangeError('generate: the prompt is empty; give at least one token to continue from');
  const decoder = tokenizer.streamDecoder();
  for await (const { token } of generate(model, ids, options)) yield decoder.push(token);
  yield decoder.end();
}

/** The whole continuation of `prompt`. */
export async function sampleText(...args: Parameters<typeof streamText>): Promise<string> {
  let text = '';
  for await (const piece of streamText(...args)) text += piece;
  return text;
}
