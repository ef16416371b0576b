/** S4D and S5 as paths of ops, forward and backward, against PyTorch; growth with length; the time of one token at several positions. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { agreement, disagreement } from './agreement.js';
import { against, type Context, facts, inProcess, type Params, type Suite, takeTurns } from './harness.js';
import { emitGrowth } from './mixing.js';
import { inPython } from './python.js';
import { H, M, P, writeStart } from './ssm/handover.js';
import { layerTask } from './ssm/layers.js';
import { S4D, S4D_STEP } from './ssm/s4d.js';
import { S5, S5_STEP } from './ssm/s5.js';
import { stepTask, TOKENS } from './ssm/steps.js';
import { median } from './statistics.js';

const LENGTHS = [1024, 2048, 4096, 8192, 16384];
const POSITIONS = [1, 1024, 16384];
/** Of what `digest` gives: the rounding of float32 on both sides makes up to 3e-4 (measured). */
const TOLERANCE = 1e-3;

const LAYERS = [
  { ours: 's4d', name: `S4D, B=1 H=${H} N=${2 * M}`, step: 's4d-step' },
  { ours: 's5', name: `S5, B=1 H=${H} P=${P}`, step: 's5-step' },
];

export const ssm: Suite = {
  name: 'ssm',
  tests: [
    'test/chunked/discretise',
    'test/chunked/vandermonde',
    'test/chunked/longConvolution',
    'test/chunked/linearScan',
    'test/chunked/s5',
    'test/chunked/diagonalSsm',
  ],
  tasks: { s4d: layerTask(S4D), s5: layerTask(S5), 's4d-step': stepTask(S4D_STEP), 's5-step': stepTask(S5_STEP) },
  async run(context) {
    const folder = mkdtempSync(join(tmpdir(), 'seqmix-bench-'));
    const handover = join(folder, 'handover.safetensors');
    const lengths = context.lengths ?? LENGTHS;
    try {
      writeStart(handover, Math.max(...lengths, ...POSITIONS) + TOKENS);
      for (const layer of LAYERS) {
        for (const pass of context.passes) {
          for (const T of lengths) await comparePython(context, layer, { T, pass, handover });
          await emitGrowth(context, layer.ours, { pass, handover }, lengths);
        }
        await emitFlatness(context, layer.step, handover);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
};

/** In turns with the same layer in PyTorch, from the same numbers; a row, with how far their outputs or gradients differ. */
async function comparePython(context: Context, { ours, name }: (typeof LAYERS)[number], params: Params): Promise<void> {
  const mine = inProcess(context.suite, ours, params);
  const peer = inPython('pytorch-cpu', 'stateSpace.py', { ...params, layer: ours });
  try {
    const results = await takeTurns([mine, peer], context.reps);
    const [a, b] = [mine, peer].map((contestant) => results.get(contestant.name));
    if (!a || a.failure) throw new Error(`bench ssm: ${ours} failed at T=${params.T}: ${a?.failure}`);
    const agreed = agreement(mine.told.values, peer.told.values, 1);
    const skipped = b?.failure ?? disagreement(agreed, 'digest', TOLERANCE);
    const { handover: _, ...shown } = params;
    const row = { ...facts('ssm', name), ...shown, reps: context.reps, ms: median(a.samples), peer: peer.name };
    context.emit(
      skipped || !b
        ? { ...row, skipped }
        : { ...row, ...against(a.samples, b.samples), digestDifference: agreed.worst },
    );
  } finally {
    for (const contestant of [mine, peer]) contestant.close();
  }
}

/** Slowest over fastest position of one token. */
async function emitFlatness(context: Context, task: string, handover: string): Promise<void> {
  const contestants = POSITIONS.map((T) => ({
    ...inProcess(context.suite, task, { T, pass: 'fwd', handover }),
    name: String(T),
  }));
  try {
    const results = await takeTurns(contestants, 2 * context.reps);
    const ms = [...results.values()].map(({ samples }) => Math.min(...samples) / TOKENS);
    context.emit({
      ...facts('ssm', `${task}: flatness`),
      maxOverMin: Math.max(...ms) / Math.min(...ms),
      positions: POSITIONS,
      msPerToken: ms,
    });
  } finally {
    for (const contestant of contestants) contestant.close();
  }
}
