/** The layer against stored vectors (float64 references): y, final state, and the gradients on x and every weight. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import { GatedLinearAttention, type GatedLinearAttentionOptions } from '../../src/layers/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { glaLayerOptions, runLayer } from '../support/goldenRuns.js';
import { inScope } from '../support/opProperties.js';
import { expectClose } from '../support/tensors.js';

type Form = GatedLinearAttentionOptions['form'];

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each(goldenEntries('gla_layer'))('$file', (entry) => {
    test.each<Form>(['auto', 'chunk', 'recurrent', 'parallel'])('%s', (form) => inScope(() => replay(entry, form)));
  });
});

function replay({ file, config, outputs, tolerances }: GoldenEntry, form: Form): void {
  const golden = readGolden(file);
  const got = runLayer(new GatedLinearAttention(glaLayerOptions(config, form)), config, golden);
  expect(Object.keys(got).sort()).toEqual(Object.keys(outputs).sort());
  for (const [name, { max_abs, max_ref }] of Object.entries(tolerances))
    expectClose(name, got[name], golden[name], max_abs / Math.max(1, max_ref));
}
