/** GLA against stored vectors (float64 references), in every form, on wasm and cpu: outputs, final state and every gradient. */
import { beforeAll, describe, test } from 'vitest';
import { type GlaOptions, gla } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { runOp } from '../support/goldenRuns.js';
import { expectClose } from '../support/tensors.js';

const forms = ['auto', 'chunk', 'recurrent', 'parallel'] as const;

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));

  describe.each(goldenEntries('gla', 'simple_gla'))('$file', (entry) => {
    test.each(forms)('%s', (form) => replay(entry, { form }));
    test.each([16, 32])('chunks of %i', (chunkSize) => replay(entry, { form: 'chunk', chunkSize }));
    test('auto, chunks of 32', () => replay(entry, { chunkSize: 32 }));
  });
});

function replay({ file, config, tolerances }: GoldenEntry, options: GlaOptions): void {
  const golden = readGolden(file);
  const got = runOp(gla, config, golden, options);
  for (const [name, { max_abs, max_ref }] of Object.entries(tolerances))
    expectClose(name, got[name], golden[name], max_abs / Math.max(1, max_ref));
}
