/** Text from a model: generation with a tokenizer around it. */
import { type CausalLM, type GenerateOptions, generate } from '../models/index.js';
import type { Tokenizer } from './tokenizers/index.js';

export interface SampleOptions extends GenerateOptions {
  /** Texts that end the continuation; they are not part of it. A session stands after the token that completed one. */
  stopTexts?: readonly string[];
  /** Called for every token drawn. */
  onToken?: (token: number) => void;
}

/**
 * The continuation of `prompt` as text, piece by piece, none of them empty. A character comes once all its tokens are there, and text
 * that may become a stop text once it has not.
 * @throws RangeError when there is no token to continue from, or an option is out of range
 */
export async function* streamText(
  model: CausalLM,
  tokenizer: Tokenizer,
  prompt: string,
  { stopTexts = [], onToken, ...options }: SampleOptions = {},
): AsyncGenerator<string> {
  const decoder = tokenizer.stream();
  const filter = new StopFilter(stopTexts);
  for await (const { token } of generate(model, tokenizer.encode(prompt), options)) {
    onToken?.(token);
    const text = filter.push(decoder.push(token));
    if (text) yield text;
    if (filter.stopped) return;
  }
  const rest = filter.push(decoder.end()) + filter.end();
  if (rest) yield rest;
}

/** The whole continuation of `prompt`. */
export async function sampleText(...args: Parameters<typeof streamText>): Promise<string> {
  let text = '';
  for await (const piece of streamText(...args)) text += piece;
  return text;
}

/** Passes text on up to the first stop text, holding back what may be the beginning of one. */
class StopFilter {
  stopped = false;
  #held = '';
  readonly #stops: readonly string[];

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop.length > 0);
  }

  push(piece: string): string {
    if (this.stopped) return '';
    const text = this.#held + piece;
    const found = this.#stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    this.stopped = found.length > 0;
    const cut = this.stopped ? Math.min(...found) : text.length - this.#openLength(text);
    this.#held = this.stopped ? '' : text.slice(cut);
    return text.slice(0, cut);
  }

  /** What was held back and became no stop text. */
  end(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }

  /** Length of the longest end of `text` that begins a stop text. */
  #openLength(text: string): number {
    const lengths = this.#stops.map((stop) => {
      let n = Math.min(stop.length - 1, text.length);
      while (n > 0 && !text.endsWith(stop.slice(0, n))) n--;
      return n;
    });
    return Math.max(0, ...lengths);
  }
}
