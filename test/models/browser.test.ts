/** What runs in browsers may not reach for Node's modules, by any chain of imports. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

/** Specifiers of Node's modules that a source file reaches, with the file that names them; type-only imports vanish and do not count. */
function nodeImports(file: URL, seen = new Set<string>()): string[] {
  if (seen.has(file.href)) return [];
  seen.add(file.href);
  const source = readFileSync(file, 'utf8');
  const statements = source.matchAll(
    /^(?:import|export)(?!\s+type\b)[^;]*?from\s+'([^']+)'|^import\s+'([^']+)'|\bimport\('([^']+)'\)/gm,
  );
  return [...statements].flatMap(([, from, bare, dynamic]) => {
    const specifier = from ?? bare ?? dynamic;
    if (specifier.startsWith('node:')) return [`${file.pathname} imports ${specifier}`];
    if (!specifier.startsWith('.') || specifier.includes('/generated/')) return [];
    return nodeImports(new URL(specifier.replace(/\.js$/, '.ts'), file), seen);
  });
}

const source = (path: string) => new URL(`../../src/${path}`, import.meta.url);

test.each(['index.ts', 'chunked/index.ts', 'layers/index.ts', 'models/index.ts', 'train/browser.ts'])(
  '%s imports nothing of Node',
  (entry) => {
    expect(nodeImports(source(entry))).toEqual([]);
  },
);

test('the search sees what it looks for', () => {
  expect(nodeImports(source('train/checkpoint/index.ts')).length).toBeGreaterThan(0);
});
