/** The layer against stored vectors (float64 references): y, final state, and the gradients on x and every weight. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import { KimiDeltaAttention, type KimiDeltaAttentionOptions } from '../../src/layers/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { kdaLayerOptions, runLayer } from '../support/goldenRuns.js';
import { inScope } from '../support/opProperties.js';
import { expectClose } from '../support/tensors.js';

type Form = KimiDeltaAttentionOptions['form'];

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each(goldenEntries('kda_layer'))('$file', (entry) => {
    test.each<Form>(['auto', 'chunk', 'recurrent'])('%s', (form) => inScope(() => replay(entry, form)));
  });
});

function replay({ file, config, outputs, tolerances }: GoldenEntry, form: Form): void {
  const golden = readGolden(file);
  const kimi = config.naming.startsWith('kimi');
  const layer = new KimiDeltaAttention({ ...kdaLayerOptions(config, form), gateBias: !kimi });
  const got = runLayer(layer, config, golden, kimi ? kimiName : undefined);
  expect(Object.keys(got).sort()).toEqual(Object.keys(outputs).sort());
  for (const [name, { max_abs, max_ref }] of Object.entries(tolerances))
    expectClose(name, got[name], golden[name], max_abs / Math.max(1, max_ref));
}

/** `f_proj.0.weight` is `f_a_proj.weight` in the checkpoints of Kimi Linear. */
const kimiName = (name: string) => name.replace(/^([fg])_proj\.([01])/, (_, gate, i) => `${gate}_${'ab'[i]}_proj`);
