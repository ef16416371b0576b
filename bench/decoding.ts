/** Decoding on the clock: what every suite of it shares. */
import * as tf from '@tensorflow/tfjs';
import { CausalLM, type ModelConfigInput, type ModelState } from '../src/models/index.js';
import { WASM_ONLY } from './environment.js';
import {
  against,
  type Contestant,
  type Context,
  type Params,
  type Result,
  type Row,
  type Task,
  takeTurns,
} from './harness.js';
import { readHandover } from './train/handover.js';

/** Tokens decoded in one run, all from the same state. */
export const TOKENS = 8;
/** A model and its state after `position` tokens of the text. */
export type Start = { model: CausalLM; state: ModelState };

/** Decodes the tokens of the text that come after the start. */
export function decoding(startAt: (params: Params, ids: Int32Array) => Start): Task {
  return {
    setup: 'ours',
    env: WASM_ONLY,
    patienceMs: 120_000,
    prepare(params) {
      const ids = textIds(params);
      const { model, state } = startAt(params, ids);
      const next = ids.subarray(params.T, params.T + TOKENS);
      return () => tf.tidy(() => decodeTokens(model, state, next));
    },
  };
}

/** The text handed over, as one sequence. @throws RangeError when it ends before the last token to be decoded */
export function textIds({ T, handover }: Params): Int32Array {
  const { batches } = readHandover(handover);
  const ids = Int32Array.from(batches.flatMap(({ inputs }) => [...inputs]));
  if (T + TOKENS <= ids.length) return ids;
  throw new RangeError(`bench decode: the text ends at ${ids.length} tokens, before position ${T + TOKENS}`);
}

/**
 * A state as if `T` tokens had been read, of normal numbers: caches hold T entries, states of constant size stay what they are. Reading
 * a prompt would take attention time quadratic in T; the time of a token does not depend on what is in its state.
 */
export function filledAt(config: ModelConfigInput, T: number): Start {
  const model = new CausalLM(config);
  const empty = model.initialState();
  let seed = 0;
  const filled = (x: tf.Tensor) =>
    tf.randomNormal(
      x.shape.map((n) => n || T), // a cache begins with no entries
      0,
      1,
      'float32',
      ++seed,
    );
  const state = empty.map((layer) => Object.fromEntries(Object.entries(layer).map(([name, x]) => [name, filled(x)])));
  tf.dispose(empty);
  return { model, state };
}

export function forward(model: CausalLM, ids: Int32Array, state: ModelState): { top: number; state: ModelState } {
  const tokens = tf.tensor2d(ids, [1, ids.length], 'int32');
  const { logits, state: next } = model.forward(tokens, state, { lastOnly: true });
  const top = Math.max(...logits.dataSync()); // the logits are read, as sampling does
  tf.dispose([tokens, logits]);
  return { top, state: next };
}

/** Gives the largest logit after the last token. The tokens are the text's, so that every contestant decodes the same. */
function decodeTokens(model: CausalLM, start: ModelState, ids: Int32Array): number {
  let [state, top] = [start, 0];
  for (let i = 0; i < ids.length; i++) {
    const before = state;
    ({ state, top } = forward(model, ids.subarray(i, i + 1), state));
    if (before !== start) tf.dispose(before);
  }
  return top;
}

/** Bytes of the state of one sequence at a position. */
export function stateBytes(config: ModelConfigInput, position: number): number {
  const model = new CausalLM(config);
  const bytes = model.stateBytes(1, position);
  model.dispose();
  return bytes;
}

/** Turns of all contestants, whose processes end after it; samples are milliseconds a token. */
export async function perToken(context: Context, contestants: Contestant[]): Promise<Result[]> {
  try {
    const results = await takeTurns(contestants, context.reps);
    return [...results.values()].map((result) => ({ ...result, samples: result.samples.map((ms) => ms / TOKENS) }));
  } finally {
    for (const contestant of contestants) contestant.close();
  }
}

/** A row's timings, and tokens a second. */
export function paces(mine: Result, theirs: Result): Partial<Row> {
  const timings = against(mine.samples, theirs.samples);
  const [tokensPerSecond, peerTokensPerSecond] = [timings.ms, timings.peerMs].map((ms = 0) => 1e3 / ms);
  return { ...timings, tokensPerSecond, peerTokensPerSecond };
}
