/** One token after another, at positions 128 to 64k: GLA, whose state stays the same size, against softmax attention of the same width, whose cache grows. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { useBackend } from '../src/index.js';
import { CausalLM, type ModelConfigInput, type ModelState } from '../src/models/index.js';
import { agreement, disagreement } from './agreement.js';
import { WASM_ONLY } from './environment.js';
import {
  against,
  type Contestant,
  type Context,
  facts,
  inProcess,
  type Params,
  type Result,
  type Row,
  type Suite,
  type Task,
  takeTurns,
} from './harness.js';
import { inPython } from './python.js';
import { crossover, median } from './statistics.js';
import { readHandover, smallModel, writeHandover } from './train/handover.js';

/** Tokens decoded in one run, all from the same state. */
const TOKENS = 8;
const POSITIONS = [128, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
/** Tokens of a prompt read at once. */
const PIECE = 512;

export const decode: Suite = {
  name: 'decode',
  tests: ['test/models/causalLM', 'test/models/generate', 'test/chunked/gla.', 'test/chunked/flashAttention.'],
  tasks: { gla: decoding(glaAt), softmax: decoding(softmaxAt) },
  async run(context) {
    const folder = mkdtempSync(join(tmpdir(), 'seqmix-bench-'));
    const handover = join(folder, 'handover.safetensors');
    const positions = context.lengths ?? POSITIONS;
    try {
      await useBackend('wasm');
      await writeHandover(handover, { config: smallModel(), batchSize: 1, seqLen: 4096 });
      const at = (T: number): Params => ({ T, pass: 'fwd', handover });
      const points: Point[] = [];
      for (const T of positions) points.push(await compareAt(context, at(T)));
      emitCrossover(context, points);
      await emitFlatness(context, positions.map(at));
      await comparePython(context, at(positions[0]));
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
};

/** Milliseconds a token at one position. */
interface Point {
  position: number;
  gla: number;
  softmax: number;
}

/** A model and its state after `position` tokens of the text. */
type Start = { model: CausalLM; state: ModelState };

function decoding(startAt: (params: Params, ids: Int32Array) => Start): Task {
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
function textIds({ T, handover }: Params): Int32Array {
  const { batches } = readHandover(handover);
  const ids = Int32Array.from(batches.flatMap(({ inputs }) => [...inputs]));
  if (T + TOKENS <= ids.length) return ids;
  throw new RangeError(`bench decode: the text ends at ${ids.length} tokens, before position ${T + TOKENS}`);
}

/** Reads the whole prompt, so that the state is a real one. */
function glaAt({ T, handover }: Params, ids: Int32Array): Start {
  const { config, weights } = readHandover(handover);
  const model = new CausalLM(config, { weights });
  let state = model.initialState();
  for (let t = 0; t < T; t += PIECE) {
    const before = state;
    state = forward(model, ids.subarray(t, Math.min(t + PIECE, T)), state).state;
    tf.dispose(before);
  }
  return { model, state };
}

/** Reading the prompt would take time quadratic in T; the time of a token does not depend on what is in the cache. */
function softmaxAt({ T, handover }: Params): Start {
  const model = new CausalLM(softmaxConfig(readHandover(handover).config));
  const filled = (x: tf.Tensor, seed: number) => tf.randomNormal([1, T, ...x.shape.slice(2)], 0, 1, 'float32', seed);
  const empty = model.initialState();
  const state = empty.map(({ k, v }, layer) => ({ k: filled(k, 2 * layer + 1), v: filled(v, 2 * layer + 2) }));
  tf.dispose(empty);
  return { model, state };
}

const softmaxConfig = (config: ModelConfigInput): ModelConfigInput => ({
  ...config,
  mixers: [{ type: 'softmax_attention', numHeads: 4 }],
});

function forward(model: CausalLM, ids: Int32Array, state: ModelState): { top: number; state: ModelState } {
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

/** Both at one position: a row. */
async function compareAt(context: Context, params: Params): Promise<Point> {
  const [gla, softmax] = ['gla', 'softmax'].map((name) => inProcess(context.suite, name, params));
  const bytes = stateBytes(params.T);
  const [mine, theirs] = await perToken(context, [gla, softmax]);
  const row = { ...facts('decode', 'gla'), ...gla.told.ran, T: params.T, reps: context.reps, peer: 'softmax' };
  const skipped = mine.failure ?? theirs.failure;
  context.emit(skipped ? { ...row, skipped, ...bytes } : { ...row, ...paces(mine, theirs), ...bytes });
  const ms = ({ samples, failure }: Result) => (failure ? Number.NaN : median(samples));
  return { position: params.T, gla: ms(mine), softmax: ms(theirs) };
}

/** Bytes of the state of one sequence at a position: of the model, and of that with softmax attention. */
function stateBytes(position: number): Partial<Row> {
  const [stateBytes, peerStateBytes] = [smallModel(), softmaxConfig(smallModel())].map((config) => {
    const model = new CausalLM(config);
    const bytes = model.stateBytes(1, position);
    model.dispose();
    return bytes;
  });
  return { stateBytes, peerStateBytes };
}

/** Turns of all contestants, whose processes end after it; samples are milliseconds a token. */
async function perToken(context: Context, contestants: Contestant[]): Promise<Result[]> {
  try {
    const results = await takeTurns(contestants, context.reps);
    return [...results.values()].map((result) => ({ ...result, samples: result.samples.map((ms) => ms / TOKENS) }));
  } finally {
    for (const contestant of contestants) contestant.close();
  }
}

function paces(mine: Result, theirs: Result): Partial<Row> {
  const timings = against(mine.samples, theirs.samples);
  const [tokensPerSecond, peerTokensPerSecond] = [timings.ms, timings.peerMs].map((ms = 0) => 1e3 / ms);
  return { ...timings, tokensPerSecond, peerTokensPerSecond };
}

/** From which position on GLA is faster. */
function emitCrossover(context: Context, points: Point[]): void {
  const measured = points.filter(({ gla, softmax }) => Number.isFinite(gla - softmax));
  if (measured.length === 0) return;
  const from = crossover(measured.map(({ position, gla, softmax }) => ({ x: position, difference: softmax - gla })));
  const [first, last] = [measured[0].position, measured[measured.length - 1].position];
  const position =
    from === undefined ? `none up to ${last}` : from <= first ? `at or before ${first}` : Math.round(from);
  context.emit({ ...facts('decode', 'gla faster than softmax from position'), position });
}

/** Slowest over fastest position of GLA; all take turns. */
async function emitFlatness(context: Context, all: Params[]): Promise<void> {
  const contestants = all.map((params) => ({ ...inProcess(context.suite, 'gla', params), name: String(params.T) }));
  const results = await perToken(context, contestants);
  const failed = results.find(({ failure }) => failure);
  if (failed) throw new Error(`bench decode: gla failed: ${failed.failure}`);
  const ms = results.map(({ samples }) => median(samples));
  const positions = all.map(({ T }) => T);
  context.emit({
    ...facts('decode', 'flatness of gla'),
    maxOverMin: Math.max(...ms) / Math.min(...ms),
    positions,
    msPerToken: ms,
  });
}

/** The same model, weights, text and position in PyTorch, where a token's time does not depend on the position either. */
async function comparePython(context: Context, params: Params): Promise<void> {
  const gla = inProcess(context.suite, 'gla', params);
  const python = inPython('pytorch-cpu', 'decode.py', { ...params, tokens: TOKENS });
  const [mine, theirs] = await perToken(context, [gla, python]);
  const agreed = agreement(gla.told.values, python.told.values, 1);
  const skipped = mine.failure ?? theirs.failure ?? disagreement(agreed, 'largest logit', 1e-3);
  const row = { ...facts('decode', 'gla'), ...gla.told.ran, T: params.T, reps: context.reps, peer: python.name };
  context.emit({ ...row, ...(skipped ? { skipped } : { ...paces(mine, theirs), logitDifference: agreed.worst }) });
}
