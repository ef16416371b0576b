/** One token after another, at positions 128 to 64k: GLA, whose state stays the same size, against softmax attention of the same width, whose cache grows. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { useBackend } from '../src/index.js';
import { CausalLM, type ModelConfigInput } from '../src/models/index.js';
import { agreement, disagreement } from './agreement.js';
import { decoding, filledAt, forward, paces, perToken, type Start, stateBytes, TOKENS } from './decoding.js';
import { type Context, facts, inProcess, type Params, type Result, type Suite } from './harness.js';
import { inPython } from './python.js';
import { crossover, median } from './statistics.js';
import { readHandover, smallModel, writeHandover } from './train/handover.js';

const POSITIONS = [128, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
/** Tokens of a prompt read at once. */
const PIECE = 512;

export const decode: Suite = {
  name: 'decode',
  tests: ['test/models/causalLM', 'test/models/generate', 'test/chunked/gla.', 'test/chunked/flashAttention.'],
  tasks: {
    gla: decoding(glaAt),
    softmax: decoding(({ T, handover }) => filledAt(softmaxConfig(readHandover(handover).config), T)),
  },
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

const softmaxConfig = (config: ModelConfigInput): ModelConfigInput => ({
  ...config,
  mixers: [{ type: 'softmax_attention', numHeads: 4 }],
});

/** Both at one position: a row. */
async function compareAt(context: Context, params: Params): Promise<Point> {
  const [gla, softmax] = ['gla', 'softmax'].map((name) => inProcess(context.suite, name, params));
  const [mineBytes, theirBytes] = [smallModel(), softmaxConfig(smallModel())].map((c) => stateBytes(c, params.T));
  const bytes = { stateBytes: mineBytes, peerStateBytes: theirBytes };
  const [mine, theirs] = await perToken(context, [gla, softmax]);
  const row = { ...facts('decode', 'gla'), ...gla.told.ran, T: params.T, reps: context.reps, peer: 'softmax' };
  const skipped = mine.failure ?? theirs.failure;
  context.emit(skipped ? { ...row, skipped, ...bytes } : { ...row, ...paces(mine, theirs), ...bytes });
  const ms = ({ samples, failure }: Result) => (failure ? Number.NaN : median(samples));
  return { position: params.T, gla: ms(mine), softmax: ms(theirs) };
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
