/**
 * Softmax attention: the kernel against stock ops and PyTorch; Scatterbrain against it; with a bias of low rank against the same kernel with
 * the dense bias and against stock ops; and what memory each takes.
 */
import * as tf from '@tensorflow/tfjs';
import { alibi, alibiSlopes, denseBias } from '../src/bias/index.js';
import {
  type FlashAttentionInputs,
  flashAttention,
  flashBias,
  orthogonalProjection,
  type ScatterbrainOptions,
  scatterbrain,
} from '../src/chunked/index.js';
import { meterBytes } from '../test/support/peakBytes.js';
import { type Context, facts, inProcess, type Params, type Pass, type Suite, type Task } from './harness.js';
import { type Inputs, type Measured, measureMixing, mixingTask, SIZES, SIZES_NAME } from './mixing.js';
import { inPython } from './python.js';
import { drawQkv, refuseScores, stockSoftmax } from './softmax.js';
import { growthExponent } from './statistics.js';

const RANK = 16;
/** Stock ops take more than half a minute for longer sequences. */
const STOCK_UNTIL: Record<Pass, number> = { fwd: 4096, fwdbwd: 2048 };
/** The peer of stock ops, where it is not too slow. */
const stock = (name: string, { T, pass }: Params) => (T <= STOCK_UNTIL[pass] ? [name] : []);
const { H } = SIZES;

/** Slopes, from which the bias is made in every run, as in training. */
const drawSlopes = (): Inputs => ({ slopes: tf.tensor1d(alibiSlopes(H)) });
/** A learned table of rank 16; its dense form is multiplied out in every run, as in training. */
const drawFactors = (T: number): Inputs => {
  const [phiQ, phiK] = [6, 7].map((seed) => tf.randomNormal([1, T, H, RANK], 0, 0.5, 'float32', seed));
  return { phiQ, phiK };
};
/** The same table, dense. */
const drawTable = (T: number): Inputs => ({ bias: tf.tidy(() => denseBias(drawFactors(T) as Factors)) });
type Factors = Parameters<typeof denseBias>[0];

/** [H, T, T] from the slopes. */
function denseAlibi({ slopes }: Inputs, T: number): tf.Tensor {
  const position = tf.range(0, T);
  const distance = tf.sub(position.reshape([1, T]), position.reshape([T, 1])); // j - i
  return tf.mul(slopes.reshape([H, 1, 1]), distance);
}

type Given = FlashAttentionInputs & Inputs;
/** A task of the kernels on q, k, v and what `draw` adds to them. */
const ours = (draw: (T: number) => Inputs, run: (x: Given) => tf.Tensor, used?: readonly string[]): Task =>
  mixingTask(
    'ours',
    (T) => ({ ...drawQkv(T), ...draw(T) }) as Inputs,
    (x) => run(x as Given),
    used,
  );
const qkvOf = ({ q, k, v }: Given) => ({ q, k, v });
const lengthOf = ({ q }: Given) => q.shape[1] as number;
/** A dense bias, its gradient and what it is made from are matrices of the size of all scores. */
const dense = (task: Task, held: Record<Pass, number> = { fwd: 2, fwdbwd: 3 }): Task => ({
  ...task,
  refusal: (params) => refuseScores(params, held[params.pass]),
});

/** Exact in a window of 64, by 64 features elsewhere: 64 + 2 * 64 numbers for each query, whatever T. */
const drawProjection = (): Inputs => {
  const W = orthogonalProjection({ headDim: SIZES.K, nbFeatures: 64 });
  return { projection: tf.tensor2d(W, [32, SIZES.K]) };
};
const scattered = (options: ScatterbrainOptions): Task =>
  ours(
    drawProjection,
    ({ projection, ...x }) =>
      scatterbrain({ ...qkvOf(x as Given), projection }, { outputFinalState: false, ...options }).o,
    ['q', 'k', 'v'],
  );

const flash = ours(
  () => ({}),
  (x) => flashAttention(x).o,
);

const tasks: Record<string, Task> = {
  flash,
  'flash-wasm': { ...flash, env: { SEQMIX_NATIVE: 'off' } },
  scatterbrain: scattered({ windowSize: 64 }),
  'scatterbrain-hash': scattered({ windowSize: 32, hash: { type: 'rotation', bucketSize: 32 } }),
  'stock-softmax': stockSoftmax(),
  alibi: ours(drawSlopes, (x) => {
    const factors = alibi({ slopes: x.slopes, queries: lengthOf(x) });
    return flashBias({ ...qkvOf(x), ...factors }, { factorGradient: ['phiQ'] }).o;
  }),
  'alibi-dense': dense(
    ours(drawSlopes, (x) => flashAttention({ ...qkvOf(x), bias: denseAlibi(x, lengthOf(x)).expandDims(0) }).o),
    { fwd: 2, fwdbwd: 4 },
  ),
  'alibi-stock': stockSoftmax({ draw: drawSlopes, bias: denseAlibi }),
  table: ours(drawFactors, (x) => flashBias({ ...qkvOf(x), ...(x as unknown as Factors) }).o),
  'table-dense': dense(
    ours(drawFactors, (x) => flashAttention({ ...qkvOf(x), bias: denseBias(x as unknown as Factors) }).o),
    { fwd: 2, fwdbwd: 4 },
  ),
  'table-stock': stockSoftmax({ draw: drawFactors, bias: (x) => denseBias(x as unknown as Factors).squeeze([0]) }),
  'table-constant': ours(
    drawFactors,
    (x) => flashBias({ ...qkvOf(x), ...(x as unknown as Factors) }, { factorGradient: false }).o,
    ['q', 'k', 'v'],
  ),
  'table-dense-constant': dense(
    ours(drawTable, (x) => flashAttention(x, { biasGradient: false }).o, ['q', 'k', 'v']),
    { fwd: 2, fwdbwd: 2 },
  ),
};

/** The same tasks, each giving back how many bytes the backend holds at most while it runs: inputs, outputs and all between. */
const memoryTasks = Object.fromEntries(Object.entries(tasks).map(([name, task]) => [`${name}-memory`, metered(task)]));

function metered(task: Task): Task {
  return {
    ...task,
    warmUp: { ms: 0, calls: 1 }, // every run holds the same
    async prepare(params) {
      const meter = meterBytes();
      const run = await task.prepare(params);
      return () => {
        meter.restart();
        run();
        return meter.peak();
      };
    },
  };
}

export const attention: Suite = {
  name: 'attention',
  tests: ['test/chunked/flashAttention', 'test/chunked/flashBias', 'test/chunked/scatterbrain'],
  tasks: { ...tasks, ...memoryTasks },
  async run(context) {
    const measured: Measured[] = [
      {
        ours: 'flash',
        name: `softmax attention, ${SIZES_NAME}`,
        peers: (params) => [
          ...stock('stock-softmax', params),
          inPython('pytorch-cpu', 'attention.py', { ...SIZES, ...params }),
          'flash-wasm', // without the addon
        ],
      },
      {
        ours: 'scatterbrain',
        name: `Scatterbrain, window 64, 64 features, ${SIZES_NAME}`,
        peers: () => ['flash'],
      },
      {
        ours: 'scatterbrain-hash',
        name: `Scatterbrain, window 32, rotation hash 32, 64 features, ${SIZES_NAME}`,
        peers: () => ['flash'],
      },
      {
        ours: 'alibi',
        growth: false,
        name: `ALiBi, learned slopes, ${SIZES_NAME}`,
        peers: (params) => ['alibi-dense', ...stock('alibi-stock', params)],
      },
      {
        ours: 'table',
        growth: false,
        name: `learned table, rank ${RANK}, ${SIZES_NAME}`,
        peers: (params) => ['table-dense', ...stock('table-stock', params)],
      },
      {
        ours: 'table-constant',
        growth: false,
        name: `constant table, rank ${RANK}, ${SIZES_NAME}`,
        peers: () => ['table-dense-constant'],
      },
    ];
    await measureMixing(context, measured, { turns: 1 }); // seconds each, where time grows as the square
    for (const name of Object.keys(tasks)) await emitMemory(context, name, MEMORY_LENGTHS);
  },
};

const MEMORY_LENGTHS = [1024, 4096, 8192];

/** Bytes of one task at each length, and the exponent of their growth. */
async function emitMemory(context: Context, name: string, lengths: number[]): Promise<void> {
  for (const pass of context.passes) {
    const points: { T: number; bytes: number }[] = [];
    const skipped: string[] = [];
    const longest = name.includes('stock') ? STOCK_UNTIL[pass] : Number.POSITIVE_INFINITY;
    for (const T of (context.lengths ?? lengths).filter((n) => lengths.includes(n) && n <= longest)) {
      const contestant = inProcess(context.suite, `${name}-memory`, { T, pass });
      try {
        await contestant.ready();
        points.push({ T, bytes: Math.max(...contestant.told.values) });
      } catch (error) {
        skipped.push(`T=${T}: ${(error as Error).message}`);
      } finally {
        contestant.close();
      }
    }
    context.emit({
      ...facts('attention', `${name}: memory`),
      pass,
      lengths: points.map(({ T }) => T),
      memoryBytes: points.map(({ bytes }) => bytes),
      ...(points.length > 1 && { exponent: growthExponent(points.map(({ T, bytes }) => ({ T, ms: bytes }))) }),
      ...(skipped.length > 0 && { skipped: skipped.join('; ') }),
    });
  }
}
