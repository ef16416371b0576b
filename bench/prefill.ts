/** Reading a long prompt on two cores (a pipeline over the layers) against one, with our own products and with native ones. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { useBackend } from '../src/index.js';
import { CausalLM, Session } from '../src/models/index.js';
import { PrefillPool } from '../src/prefill/index.js';
import { agreement, disagreement } from './agreement.js';
import { textIds } from './decoding.js';
import { NATIVE, WASM_ONLY } from './environment.js';
import { against, type Context, facts, inProcess, type Params, type Suite, type Task, takeTurns } from './harness.js';
import { readHandover, smallModel, writeHandover } from './train/handover.js';

const LENGTHS = [4096, 16384, 32768];
/** Tokens of a prompt read at once. */
const PIECE = 512;

export const prefill: Suite = {
  name: 'prefill',
  tests: ['test/prefill/prefill.', 'test/models/generate'],
  tasks: {
    'wasm-1': reading(1, WASM_ONLY),
    'wasm-2': reading(2, WASM_ONLY),
    'native-1': reading(1, NATIVE),
    'native-2': reading(2, NATIVE),
  },
  async run(context) {
    const folder = mkdtempSync(join(tmpdir(), 'seqmix-bench-'));
    const handover = join(folder, 'handover.safetensors');
    try {
      await useBackend('wasm');
      await writeHandover(handover, { config: smallModel(), batchSize: 1, seqLen: 4096 });
      for (const T of context.lengths ?? LENGTHS)
        for (const products of ['wasm', 'native']) await compareCores(context, products, { T, pass: 'fwd', handover });
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
};

/** Reads the whole prompt; the threads are started before. */
function reading(workers: number, env: Record<string, string>): Task {
  return {
    setup: 'ours',
    env,
    async prepare(params) {
      const ids = textIds(params).subarray(0, params.T);
      const { config, weights } = readHandover(params.handover);
      const model = new CausalLM(config, { weights });
      const pool = workers > 1 ? await PrefillPool.start(model, { workers, promptTokens: params.T }) : undefined;
      return async () => {
        const session = new Session(model);
        session.append(ids);
        await pool?.read(session, PIECE);
        while (session.unread.length > PIECE) session.read(PIECE).dispose();
        const logits = session.read();
        const top = Math.max(...(await logits.data()));
        logits.dispose();
        session.dispose();
        return top;
      };
    },
  };
}

async function compareCores(context: Context, products: string, params: Params): Promise<void> {
  const [one, two] = [1, 2].map((workers) => inProcess(context.suite, `${products}-${workers}`, params));
  try {
    const results = await takeTurns([two, one], context.reps);
    const [mine, theirs] = [two, one].map(({ name }) => results.get(name)!);
    const agreed = agreement(two.told.values, one.told.values, 1);
    const skipped = mine.failure ?? theirs.failure ?? disagreement(agreed, 'largest logit', 0);
    const row = { ...facts('prefill', two.name), ...two.told.ran, T: params.T, pass: params.pass, reps: context.reps };
    if (skipped) return context.emit({ ...row, peer: one.name, skipped });
    const timings = against(mine.samples, theirs.samples);
    context.emit({ ...row, peer: one.name, ...timings, tokensPerSecond: (1e3 * params.T) / (timings.ms as number) });
  } finally {
    for (const contestant of [two, one]) contestant.close();
  }
}
