/** `seqmix pack` and the commands that open what it writes, as processes of the built command line. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { resolveRunConfig } from '../../src/config/index.js';
import { train } from '../../src/train/loop.js';
import { seqmix, temporaryFolder, tinyRun, writeRun } from '../support/run.js';

const cwd = temporaryFolder();
const run = (...args: string[]) => seqmix(args, { cwd });
const model = {
  ...{ hiddenSize: 32, numLayers: 2, mixers: ['mlgru'], linear: 'bit', tieEmbeddings: false },
  mlp: { type: 'bit_glu', intermediateSize: 32 },
};
const backend = { name: 'wasm' };

beforeAll(async () => {
  const dir = join(cwd, 'done');
  writeRun(cwd, tinyRun({ model, backend }));
  const config = resolveRunConfig(
    tinyRun({ model, backend, output: { dir }, train: { steps: 6, samplePrompts: [] } }),
    {
      folder: cwd,
    },
  );
  await train(config, { progress: { line: () => {}, tick: () => {}, stop: () => {} } });
});

test('pack, then generate, eval and describe as of the run', async () => {
  const [two, base3] = await Promise.all([run('pack', 'done', 'two'), run('pack', 'done', 'base3', '--bits', '1.6')]);
  for (const { code, stderr } of [two, base3]) expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(two.stdout).toMatch(
    /^two: 31,\d{3} parameters of step 6 from done.checkpoints.step-00000006, packed to \d+\.\d kB \(float32: 12\d kB\)$/m,
  );
  expect(readFileSync(join(cwd, 'two/README.md'), 'utf8')).toMatch(/ternary weights in 2 bits each: for inference/);
  const size = (name: string) => statSync(join(cwd, name, 'model.safetensors')).size;
  expect(size('base3')).toBeLessThan(size('two'));
  const args = ['-p', 'line ', '-n', '12', '--temperature', '0'];
  const [whole, ...texts] = await Promise.all(['done', 'two', 'base3'].map((name) => run('generate', name, ...args)));
  expect(whole.stdout).toMatch(/^line .{12}\n$/s);
  for (const { stdout } of texts) expect(stdout).toBe(whole.stdout);
  const [ofRun, ofPacked, described] = await Promise.all([
    run('eval', 'done', '--json'),
    run('eval', 'two', '--json'),
    run('describe', 'base3'),
  ]);
  const [a, b] = [ofRun, ofPacked].map(({ stdout }) => JSON.parse(stdout));
  expect(b).toMatchObject({ model: 'two', step: 6, tokens: a.tokens });
  expect(Math.abs(b.loss - a.loss)).toBeLessThan(2e-6 * a.loss);
  expect(described.stdout).toMatch(
    /^ternary: 22,528 parameters; 90,112 bytes as float32, 5,684 in 2 bits each, .* in base 3; packed here \(base3\)$/m,
  );
});

test('what cannot be done with it is said: exit code 1, wrong settings 2', async () => {
  const [exported, again, trained, bits] = await Promise.all([
    run('export', 'two', 'other'),
    run('pack', 'two', 'other'),
    run('train', 'run.json', '--model=two/config.json', '--output.dir=other'),
    run('pack', 'done', 'other', '--bits', '3'),
  ]);
  expect(exported.code).toBe(1);
  expect(exported.stderr).toMatch(/^error: export: two is a packed model, whose ternary weights are rounded for good/);
  expect(again).toMatchObject({ code: 1, stderr: 'error: packModel: the model is packed (2bit) already\n' });
  expect(trained.code).toBe(2);
  expect(trained.stderr).toContain('model.packed: the ternary weights of a packed model cannot be trained, got "2bit"');
  expect(bits.code).toBe(2);
});
