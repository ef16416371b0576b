/** What the documents promise: README's examples run and type-check against the built package, and links lead somewhere. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string) => readFileSync(join(root, file), 'utf8');

/** Inside the package, so that `seqmix` resolves to itself through `exports`. */
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(root, 'dist/readme-'));
  const blocks = [...read('README.md').matchAll(/```ts\n(.*?)```/gs)].map((match) => match[1]);
  writeFileSync(join(folder, 'readme.mts'), blocks.join('\n'));
  writeFileSync(join(folder, 'readme.mjs'), blocks.join('\n'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('the examples run, one after the other', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, 'readme.mjs')], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  expect(stdout).toMatch(/\[\s*2, 1000, 4, 48\s*\] \[\s*2, 4, 32, 48\s*\]/);
  expect(stdout).toContain('bytes, however long the past');
});

test('the examples type-check against the shipped types', () => {
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const flags = [
    '--noEmit',
    '--strict',
    '--skipLibCheck',
    '--module',
    'nodenext',
    '--target',
    'es2022',
    '--types',
    'node',
  ];
  const { status, stdout } = spawnSync(process.execPath, [tsc, ...flags, join(folder, 'readme.mts')], {
    cwd: root,
    encoding: 'utf8',
  });
  expect(status, stdout).toBe(0);
});

const documents = ['README.md', 'CONTRIBUTING.md', ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`)];

test.each(documents.filter((name) => name.endsWith('.md')))('the local links of %s lead somewhere', (document) => {
  for (const [, target] of read(document).matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/g))
    expect(existsSync(join(root, dirname(document), target)), `${document}: ${target}`).toBe(true);
});
