/** Text generation: the prompt in pieces, then token by token with constant memory where the mixers have constant state. */
import { checkPositiveInt } from '../chunked/check.js';
import { Rng } from '../rng.js';
import type { CausalLM } from './causalLM.js';
import { checkSampling, type SamplingOptions, sampleToken } from './sampling.js';
import { Session } from './session.js';

export interface GenerateOptions extends SamplingOptions {
  /** Tokens to generate at most; default 256. */
  maxTokens?: number;
  /** Generation ends when one of these is drawn; it is not yielded, but stays in the session. Default: none. */
  stopTokens?: Iterable<number>;
  /** Token t (the t-th sampled in this session) depends on the seed, t and the logits alone. Default 0. */
  seed?: number | string;
  /** Tokens of the prompt read at once; bounds the memory of a long prompt. Default 512. */
  prefillChunk?: number;
  /** Reads a long prompt (four pieces or more) on several cores, to the same bits: a `PrefillPool` of this model. Default: one core. */
  prefill?: Prefill;
  /** Goes on with this session and leaves it after the last token yielded; default: one of its own, freed at the end. */
  session?: Session;
  /** Aborting makes the iterator throw the signal's reason before the next piece of the prompt or the next token. */
  signal?: AbortSignal;
}

/** What reads prompts instead of `Session.read`. */
export interface Prefill {
  /**
   * Reads the unread tokens in pieces of `chunk`, all but the last piece, which holds 1 to `chunk` tokens.
   * @param turn called before each piece; when it throws, the session stands after the last piece read, and the error goes on
   */
  read(session: Session, chunk: number, turn: () => Promise<void>): Promise<void>;
}

/** Fewer pieces than this are read on one core: a pipeline takes some to fill and to empty. */
const MIN_PIECES = 4;

/** True for a prompt that `prefill` reads. */
export const isLongPrompt = (tokens: number, prefillChunk = 512): boolean => tokens > (MIN_PIECES - 1) * prefillChunk;

export interface GeneratedToken {
  token: number;
  /** Place of the token in the sequence, counted from 0. */
  position: number;
}

/** The thread is given free this often, so that signals and screens get their turn. */
const BREATH_MS = 50;

/**
 * Continues one sequence (batch 1). Leaving the loop early frees everything; a given `session` then stands where the loop stopped,
 * and what of the prompt is not yet read is read next time.
 * @param ids the prompt, or what follows in the session. At least one token, unless the session has one that is unread
 * @throws RangeError at once for options or token ids out of range
 */
export function generate(
  model: CausalLM,
  ids: ArrayLike<number>,
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedToken, void, undefined> {
  const { maxTokens = 256, prefillChunk = 512, session } = options;
  if (!(Number.isInteger(maxTokens) && maxTokens >= 0))
    throw new RangeError(`generate: maxTokens must be an integer >= 0, got ${maxTokens}`);
  checkPositiveInt('generate', 'prefillChunk', prefillChunk);
  checkSampling('generate', options);
  if (session && session.model !== model)
    throw new RangeError('generate: the session is of another model; open it with Session.fromBytes(bytes, model)');
  if (ids.length === 0 && !session?.unread.length)
    throw new RangeError('generate: there is no token to continue from; give at least one id');
  const own = session ?? new Session(model);
  own.append(ids);
  return run(own, { ...options, maxTokens, prefillChunk });
}

async function* run(
  session: Session,
  options: GenerateOptions & { maxTokens: number; prefillChunk: number },
): AsyncGenerator<GeneratedToken, void, undefined> {
  const stop = new Set(options.stopTokens);
  const uniform = uniformNumbers(options.seed ?? 0);
  const turn = turnTaker(options.signal);
  try {
    for (let n = 0; n < options.maxTokens; n++) {
      const logits = await readAll(session, options.prefillChunk, turn, options.prefill);
      const token = sampleToken(logits, options, uniform(session.sampled), session.seen);
      session.sampled += 1;
      session.append([token]);
      if (stop.has(token)) return;
      yield { token, position: session.position };
    }
  } finally {
    if (!options.session) session.dispose();
  }
}

/** Reads everything unread, piece by piece, and brings the last logits here. */
async function readAll(
  session: Session,
  chunk: number,
  turn: () => Promise<void>,
  prefill?: Prefill,
): Promise<Float32Array> {
  if (prefill && isLongPrompt(session.unread.length, chunk)) await prefill.read(session, chunk, turn);
  while (session.unread.length > chunk) {
    await turn();
    session.read(chunk).dispose();
  }
  await turn();
  const logits = session.read();
  try {
    return (await logits.data()) as Float32Array;
  } finally {
    logits.dispose();
  }
}

/** Numbers in [0, 1) by their index: a pure function of seed and index. */
function uniformNumbers(seed: number | string): (index: number) => number {
  const rng = new Rng(seed).split('sampling');
  const { key } = rng.state();
  return (index) => {
    rng.restore({ key, position: 2 * index }); // a uniform number takes two words
    return rng.uniform();
  };
}

/** Throws when aborted; otherwise gives the thread free if it was not for a while. */
function turnTaker(signal?: AbortSignal): () => Promise<void> {
  let last = performance.now();
  return async () => {
    if (performance.now() - last > BREATH_MS) {
      await new Promise((resolve) => setTimeout(resolve));
      last = performance.now();
    }
    signal?.throwIfAborted();
  };
}
