/**
 * MatMul-free language models: one token, and a prompt, of packed ternary weights against the same weights as float32 in stock ops, with what
 * the processes hold; memory of training with `bitLinear` fused and unfused.
 */
import { describe as describeModel, type ModelConfigInput } from '../src/models/index.js';
import { WASM_ONLY } from './environment.js';
import {
  against,
  type Contestant,
  type Context,
  facts,
  inScript,
  type Result,
  type Suite,
  takeTurns,
} from './harness.js';

/** Tokens of the prompt. */
const PROMPT = 64;
/** As in `matmulfree/weights.mjs`. */
const TOKENS = 4;
const OURS = 'packed';
const STOCK = 'float32-stock';
/** Tokens of a training step. */
const BATCH = 1024;
/** What the paper measured (arXiv 2406.02528, Fig. 4): memory and time of training saved by fusion, 1.3B on an A100; for the eye. */
const PAPER = { paperMemorySaved: 0.61, paperTimeSaved: 0.256 };
/** What is asked for: memory and tokens a second, ours over the peer's. */
const AIMS = { memoryAim: 10, speedAim: 3 };
/**
 * Of logits, |a - b| / |b|: the last bit of a sum decides which way a rounding of an activation falls, and 24 layers carry it on: 0.015 after a few
 * tokens, 0.065 after a prompt of 64 (measured). Models that have nothing in common differ by 1.4.
 */
const TOLERANCE = 0.15;

export const matmulfree: Suite = {
  name: 'matmulfree',
  tests: ['test/chunked/bitLinear', 'test/chunked/packedBitLinear', 'test/models/packed', 'test/models/mmfree'],
  tasks: {},
  async run(context) {
    const idle = await idleBytes();
    for (const T of [1, PROMPT]) await compareInference(context, T, idle);
    emitWeights(context);
    await compareTraining(context, idle[OURS]);
  },
};

type Bytes = Record<typeof OURS | typeof STOCK, number>;

const packed = (params: object) => inScript(OURS, 'matmulfree/packed.mjs', params, WASM_ONLY);
const stock = (params: object) => inScript(STOCK, 'matmulfree/stock.mjs', params);

/** What a process of each holds that has started its backend and no more. */
async function idleBytes(): Promise<Bytes> {
  const contestants = [packed, stock].map((start) => start({ idle: true }));
  await turns(contestants, 1);
  const [mine, theirs] = contestants.map(({ told }) => told.memoryBytes);
  return { [OURS]: mine, [STOCK]: theirs };
}

async function compareInference(context: Context, T: number, idle: Bytes): Promise<void> {
  const [mine, theirs] = [packed({ T }), stock({ T })];
  const results = await turns([mine, theirs], context.reps);
  const [a, b] = results.map(({ samples, ...rest }) => ({
    ...rest,
    samples: samples.map((ms) => ms / (T > 1 ? T : TOKENS)),
  }));
  if (a.failure) throw new Error(`bench matmulfree: ${OURS} failed at T=${T}: ${a.failure}`);
  const row = {
    ...facts('matmulfree', T > 1 ? 'prompt, ms a token' : 'one token'),
    ...RAN,
    T,
    reps: context.reps,
    peer: STOCK,
  };
  const difference = relativeDifference(mine.told.outputs, theirs.told.outputs);
  const skipped = b.failure ?? (difference <= TOLERANCE ? undefined : `its logits differ from ours by ${difference}`);
  if (skipped) return context.emit({ ...row, skipped });
  const bytes = memory(mine, theirs, idle);
  context.emit({ ...row, ...against(a.samples, b.samples), logitDifference: difference, ...bytes, ...AIMS });
}

/** The kernels' build is the one `useBackend` chooses by itself. */
const RAN = { build: 'auto', native: 'off' };

/** Peaks of the processes as they are, and above those that hold nothing. */
function memory(mine: Contestant, theirs: Contestant, idle: Bytes) {
  const [processBytes, peerProcessBytes] = [mine, theirs].map(({ told }) => told.memoryBytes);
  const [own, peers] = [processBytes - idle[OURS], peerProcessBytes - idle[STOCK]];
  return {
    ...{ processBytes, peerProcessBytes, rawMemoryRatio: peerProcessBytes / processBytes },
    ...{ modelProcessBytes: own, peerModelProcessBytes: peers, memoryRatio: peers / own },
    floatWeightsOverOurProcess: MODEL.bytes.float32 / own,
  };
}

const config = (vocabSize: number): ModelConfigInput => ({
  ...{ vocabSize, hiddenSize: 1024, numLayers: 24, mixers: ['mlgru'], linear: 'bit', tieEmbeddings: false },
  mlp: { type: 'bit_glu' },
});

/** What is measured: the layers of the 370M model over bytes. */
const MODEL = describeModel(config(256));

/** Bytes by count, also with the published vocabulary, whose table stays dense. */
function emitWeights(context: Context): void {
  for (const [name, vocabSize] of [
    ['over bytes, as measured', 256],
    ['as published', 32_000],
  ] as const) {
    const { parameters, bytes, ternary } = describeModel(config(vocabSize));
    const { float32, float16 } = ternary!.packedModel['2bit'];
    context.emit({
      ...facts('matmulfree', `weights of the 370M model ${name}`),
      ...{
        parameters: parameters.total,
        float32Bytes: bytes.float32,
        packedBytes: float32,
        ratio: bytes.float32 / float32,
      },
      ...{ packedBytesWith16BitTable: float16, ratioWith16BitTable: bytes.float32 / float16 },
    });
  }
}

async function compareTraining(context: Context, idle: number): Promise<void> {
  const [fused, plain] = ['auto', 'plain'].map((form) =>
    inScript(form === 'auto' ? 'fused' : 'unfused', 'matmulfree/training.mjs', { T: BATCH, form }, WASM_ONLY),
  );
  const [a, b] = await turns([fused, plain], context.reps);
  if (a.failure) throw new Error(`bench matmulfree: training failed: ${a.failure}`);
  const row = {
    ...facts('matmulfree', 'gradients of 4 layers of width 256'),
    ...RAN,
    T: BATCH,
    reps: context.reps,
    peer: plain.name,
  };
  if (b.failure) return context.emit({ ...row, skipped: b.failure });
  const [process, peerProcess] = [fused, plain].map(({ told }) => told.memoryBytes - idle);
  context.emit({
    ...{ ...row, ...against(a.samples, b.samples) },
    gradientNormDifference: relativeDifference(fused.told.outputs, plain.told.outputs),
    ...{ modelProcessBytes: process, peerModelProcessBytes: peerProcess, memorySaved: 1 - process / peerProcess },
    ...PAPER,
  });
}

/** Turns of all, whose processes end after it. */
async function turns(contestants: Contestant[], reps: number): Promise<Result[]> {
  try {
    return [...(await takeTurns(contestants, reps)).values()];
  } finally {
    for (const contestant of contestants) contestant.close();
  }
}

/** |a - b| / |b|; NaN where one has nothing. */
function relativeDifference(a: number[] = [], b: number[] = []): number {
  const norm = (xs: number[]) => Math.hypot(...xs);
  return a.length === b.length ? norm(a.map((x, i) => x - b[i])) / norm(b) : Number.NaN;
}
