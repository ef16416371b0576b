/** The layer against stored vectors (float64 references): y, final states, and the gradients on x and every weight. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import { GatedKalmaNet, type GatedKalmaNetOptions } from '../../src/layers/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { gkaLayerOptions, runLayer } from '../support/goldenRuns.js';
import { inScope } from '../support/opProperties.js';
import { expectClose } from '../support/tensors.js';

type Form = GatedKalmaNetOptions['form'];

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each(goldenEntries('gka_layer'))('$file', (entry) => {
    test.each<Form>(['auto', 'chunk', 'recurrent'])('exact, %s', (form) => inScope(() => exact(entry, form)));
    test.each<Form>(['auto', 'chunk', 'recurrent'])('Chebyshev, %s', (form) => inScope(() => chebyshev(entry, form)));
  });
});

/** All that is stored: y, states and gradients of the exact solve. */
function exact(entry: GoldenEntry, form: Form): void {
  const got = run(entry, { form, solver: 'exact' });
  const stored = Object.keys(entry.outputs).filter((name) => name !== 'y_cheb');
  expect(Object.keys(got).map(nameOfExact).sort()).toEqual(stored.sort());
  for (const [name, x] of Object.entries(got)) expectStored(entry, nameOfExact(name), x);
}

/** Its y and states; the gradients of the iteration are not stored. */
function chebyshev(entry: GoldenEntry, form: Form): void {
  const { y, final_h, final_u } = run(entry, { form, solver: 'chebyshev' });
  expectStored(entry, 'y_cheb', y);
  expectStored(entry, 'final_h', final_h);
  expectStored(entry, 'final_u', final_u);
}

function run({ file, config }: GoldenEntry, options: Partial<GatedKalmaNetOptions>) {
  const layer = new GatedKalmaNet({ ...gkaLayerOptions(config), ...options });
  return runLayer(layer, config, readGolden(file), undefined, { final_h: 'kk', final_u: 'kv' });
}

/**
 * Over the stored bounds, which one float32 implementation set; ours, in three forms on two backends, comes to 1.97 of them. What is worst is
 * y at the first token of gka_layer_3, where a norm follows a solve with a matrix of rank one: moving x by one part in 2^23 changes it by 3 of
 * the stored bounds. From the second token on no y is off by more than 3e-6.
 */
const SLACK = 4;

function expectStored({ file, tolerances }: GoldenEntry, name: string, got: Parameters<typeof expectClose>[1]): void {
  const { max_abs, max_ref } = tolerances[name];
  expectClose(name, got, readGolden(file)[name], (SLACK * max_abs) / Math.max(1, max_ref));
}

const nameOfExact = (name: string) =>
  /^final_/.test(name) ? name : name.startsWith('grad.') ? name.replace('grad.', 'grad_exact.') : `${name}_exact`;
