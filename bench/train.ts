/** Whole training steps of a GLA language model (forward, backward, AdamW) against PyTorch and TensorFlow.js, and their matrix products. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { useBackend } from '../src/index.js';
import { agreement, disagreement } from './agreement.js';
import { NATIVE, WASM_ONLY } from './environment.js';
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
  takeTurns,
} from './harness.js';
import { inPython } from './python.js';
import { GRU_TOKENS, gruSteps } from './train/gru.js';
import { smallModel, writeHandover } from './train/handover.js';
import { jaxMlp, ourMlp } from './train/mlp.js';
import { ourSteps, stockSteps } from './train/steps.js';

const BATCH_SIZE = 8;

export const train: Suite = {
  name: 'train',
  tests: ['test/train/step', 'test/models/causalLM', 'test/chunked/gla.', 'test/chunked/adamW', 'test/chunked/linear'],
  tasks: {
    wasm: ourSteps(WASM_ONLY),
    native: ourSteps(NATIVE),
    'wasm-workers2': ourSteps(WASM_ONLY, 2),
    'native-workers2': ourSteps(NATIVE, 2),
    'stock-ops': stockSteps,
    'tfjs-gru': gruSteps,
    'mlp wasm': ourMlp(WASM_ONLY),
    'mlp native': ourMlp(NATIVE),
    'jax-js': jaxMlp,
  },
  async run(context) {
    const folder = mkdtempSync(join(tmpdir(), 'seqmix-bench-'));
    const handover = join(folder, 'handover.safetensors');
    const params = { T: context.lengths?.[0] ?? 512, pass: 'fwdbwd', handover } as const;
    try {
      await useBackend('wasm');
      const { parameters } = await writeHandover(handover, {
        config: smallModel(),
        batchSize: BATCH_SIZE,
        seqLen: params.T,
      });
      await compareSteps(context, params, parameters);
      await compareMlp(context, params);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
};

async function compareSteps(context: Context, params: Params, parameters: number): Promise<void> {
  const task = (name: string) => inProcess(context.suite, name, params);
  const gruTokens = GRU_TOKENS.rows * GRU_TOKENS.tokens;
  await compete(context, {
    ours: ['wasm', 'native', 'wasm-workers2', 'native-workers2'].map(task),
    rivals: [
      { contestant: inPython('pytorch-cpu', 'train.py', params), checked: 20 },
      { contestant: task('stock-ops'), checked: 2, note: 'row by row: the whole batch exceeds the wasm memory' },
      {
        contestant: task('tfjs-gru'),
        tokens: gruTokens,
        note: `another model of about the same size, ${gruTokens} tokens a step, its time scaled to ours`,
      },
    ],
    ...{ params, tolerance: 1e-3, shared: { parameters } },
  });
}

async function compareMlp(context: Context, params: Params): Promise<void> {
  const task = (name: string) => inProcess(context.suite, name, params);
  const rivals = [{ contestant: task('jax-js'), checked: 1 }];
  await compete(context, { ours: ['mlp wasm', 'mlp native'].map(task), rivals, params, tolerance: 1e-4, shared: {} });
}

interface Rival {
  contestant: Contestant;
  /** Runs whose losses must be ours; absent for another model. */
  checked?: number;
  /** Tokens of a run where they are not ours: its time is scaled. */
  tokens?: number;
  note?: string;
}

interface Competition {
  ours: Contestant[];
  rivals: Rival[];
  params: Params;
  /** How far losses may be apart. */
  tolerance: number;
  /** Facts of every row. */
  shared: Record<string, unknown>;
}

/** All take turns; a row for each of ours against each rival. */
async function compete(context: Context, { ours, rivals, params, ...competition }: Competition): Promise<void> {
  const all = [...ours, ...rivals.map(({ contestant }) => contestant)];
  const { T, pass } = params;
  const tokens = BATCH_SIZE * T;
  try {
    const results = await takeTurns(all, context.reps);
    const checked = Math.max(...rivals.map((rival) => rival.checked ?? 0));
    for (const own of ours) if (!results.get(own.name)?.failure) await runUpTo(own, checked);
    for (const { contestant, checked = 0 } of rivals)
      if (!results.get(contestant.name)?.failure) await runUpTo(contestant, checked);
    for (const own of ours)
      for (const rival of rivals) {
        const row = { ...facts('train', own.name), ...own.told.ran, T, pass, reps: context.reps, batch: BATCH_SIZE };
        const both = [own, rival.contestant].map(({ name }) => results.get(name) as Result);
        context.emit({ ...row, ...competition.shared, ...outcome(own, rival, both, { ...competition, tokens }) });
      }
  } finally {
    for (const contestant of all) contestant.close();
  }
}

/** Goes on until it has done `runs` runs, whose losses can then be compared. */
async function runUpTo(contestant: Contestant, runs: number): Promise<void> {
  while (contestant.told.values.length < runs) await contestant.time();
}

/** The fields of a row about ours and one rival: times and paces, or why there are none. */
function outcome(
  { told }: Contestant,
  { contestant, checked, tokens: own, note }: Rival,
  [mine, theirs]: Result[],
  { tokens, tolerance }: { tokens: number; tolerance: number },
): Partial<Row> {
  const agreed = checked ? agreement(told.values, contestant.told.values, checked) : undefined;
  const unequal = agreed && disagreement(agreed, 'loss', tolerance);
  const skipped = mine.failure ?? theirs.failure ?? unequal;
  const perRun = theirs.samples.map((ms) => (ms * tokens) / (own ?? tokens));
  return {
    peer: contestant.name,
    ...(skipped ? { skipped } : paces(against(mine.samples, perRun), tokens)),
    ...(agreed && { lossDifference: agreed.worst, lossesCompared: agreed.compared }),
    ...{ memoryBytes: told.memoryBytes, peerMemoryBytes: contestant.told.memoryBytes },
    ...(note && { note }),
  };
}

type Timings = ReturnType<typeof against>;

function paces(timings: Timings, tokens: number): Partial<Row> {
  const perSecond = (ms = 0) => (1e3 * tokens) / ms;
  const [tokensPerSecond, peerTokensPerSecond] = [timings.ms, timings.peerMs].map(perSecond);
  return { ...timings, tokensPerSecond, peerTokensPerSecond };
}
