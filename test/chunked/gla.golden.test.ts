/** GLA against stored vectors (float64 references), in every form, on wasm and cpu: outputs, final state and every gradient. */
import type * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, test } from 'vitest';
import { type GlaInputs, type GlaOptions, gla } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { goldenEntries, readGolden } from '../support/golden.js';
import { expectClose, outputsAndGrads } from '../support/tensors.js';

const forms = ['auto', 'chunk', 'recurrent', 'parallel'] as const;

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));

  describe.each(goldenEntries('gla', 'simple_gla'))('$file', (entry) => {
    test.each(forms)('%s', (form) => replay(entry, { form }));
    test.each([16, 32])('chunks of %i', (chunkSize) => replay(entry, { form: 'chunk', chunkSize }));
    test('auto, chunks of 32', () => replay(entry, { chunkSize: 32 }));
  });
});

function replay(entry: ReturnType<typeof goldenEntries>[number], options: GlaOptions): void {
  const file = readGolden(entry.file);
  const { q, k, v, g, initial_state } = file;
  const inputs = { q, k, v, g, ...(initial_state && { initialState: initial_state }) };
  const run = (x: GlaInputs): tf.Tensor[] => {
    const { o, finalState } = gla(x, { scale: Number(entry.config.scale), ...options });
    return [o, finalState];
  };
  const { outputs, grads } = outputsAndGrads(run, inputs, [file.do, file.d_final_state]);
  const got: Record<string, tf.Tensor | undefined> = {
    o: outputs[0],
    final_state: outputs[1],
    dq: grads.q,
    dk: grads.k,
    dv: grads.v,
    dg: grads.g,
    d_initial_state: grads.initialState,
  };
  for (const [name, { max_abs, max_ref }] of Object.entries(entry.tolerances))
    expectClose(name, got[name] as tf.Tensor, file[name], max_abs / Math.max(1, max_ref));
}
