/**
 * Decoding at long context: three KDA layers to one of latent attention, as in Kimi Linear, against the same decoder with latent attention
 * in every layer and with softmax attention in every layer.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { useBackend } from '../src/index.js';
import type { ModelConfigInput } from '../src/models/index.js';
import { decoding, filledAt, paces, perToken, stateBytes } from './decoding.js';
import { type Context, facts, inProcess, type Suite } from './harness.js';
import { writeHandover } from './train/handover.js';

const POSITIONS = [1024, 8192, 65536];
/** Here the caches of full attention fill more than the memory of wasm; only bytes are told. */
const FAR = 2 ** 20;

/** What the paper measured at this length (arXiv 2510.26692, Fig. 1b, Fig. 7b, abstract): for the eye, other machine, other size. */
const PAPER = { paperStepTimeRatio: 2.2, paperThroughputRatio: 6.3, paperCacheSaved: 0.75 };

const mla = { type: 'mla', numHeads: 4, kvLoraRank: 128, qkNopeHeadDim: 64, qkRopeHeadDim: 32, vHeadDim: 64 } as const;
const kda = { type: 'kda', numHeads: 4, headDim: 64 } as const;
const softmax = { type: 'softmax_attention', numHeads: 4, headDim: 64 } as const;

/** 8 layers of width 256 over bytes. */
const model = (mixers: ModelConfigInput['mixers']): ModelConfigInput => ({
  ...{ vocabSize: 256, hiddenSize: 256, numLayers: 8, mixers },
  mlp: { intermediateSize: 768 },
});

const models = {
  'kda-mla-3-1': model([kda, kda, kda, mla]),
  'mla-everywhere': model([mla]),
  'softmax-everywhere': model([softmax]),
};
const OURS = 'kda-mla-3-1';
const PEERS = ['mla-everywhere', 'softmax-everywhere'] as const;

export const hybrid: Suite = {
  name: 'hybrid',
  tests: [
    'test/models/causalLM',
    'test/chunked/kda',
    'test/chunked/delta.',
    'test/chunked/flashAttention.',
    'test/layers/multiHeadLatentAttention',
  ],
  tasks: Object.fromEntries(
    Object.entries(models).map(([name, config]) => [name, decoding(({ T }) => filledAt(config, T))]),
  ),
  async run(context) {
    const folder = mkdtempSync(join(tmpdir(), 'seqmix-bench-'));
    const handover = join(folder, 'handover.safetensors');
    try {
      await useBackend('wasm');
      await writeHandover(handover, { config: models[OURS], batchSize: 1, seqLen: 4096 });
      for (const T of context.lengths ?? POSITIONS) await compareAt(context, T, handover);
      for (const peer of PEERS) emitBytes(context, peer, FAR);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
};

/** All three take turns at one position: a row for each peer. */
async function compareAt(context: Context, T: number, handover: string): Promise<void> {
  const contestants = [OURS, ...PEERS].map((name) => inProcess(context.suite, name, { T, pass: 'fwd', handover }));
  const [mine, ...others] = await perToken(context, contestants);
  const row = { ...facts('hybrid', OURS), ...contestants[0].told.ran, T, reps: context.reps };
  for (const [i, peer] of PEERS.entries()) {
    const skipped = mine.failure ?? others[i].failure;
    context.emit({ ...row, peer, ...(skipped ? { skipped } : paces(mine, others[i])), ...bytes(peer, T) });
  }
}

/** What cannot be decoded here can still be counted. */
function emitBytes(context: Context, peer: (typeof PEERS)[number], position: number): void {
  context.emit({
    ...facts('hybrid', `bytes of state against ${peer}`),
    T: position,
    ...bytes(peer, position),
    ...PAPER,
  });
}

function bytes(peer: (typeof PEERS)[number], position: number) {
  const [mine, theirs] = [OURS, peer].map((name) => stateBytes(models[name as keyof typeof models], position));
  return { stateBytes: mine, peerStateBytes: theirs, saved: 1 - mine / theirs };
}
