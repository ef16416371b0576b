/**
 * npm run bench -- <suite or all> [--json] [--T 512,2048] [--reps 15] [--quick] [--write docs/speed.md]
 * Prints Markdown, or with --json one object a line; --write puts the Markdown of all suites into a file, too. --quick: few lengths and
 * repetitions, to see that it works.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { speedDocument } from './document.js';
import { type Row, requireGreen, type Suite } from './harness.js';
import { suites } from './suites.js';
import { markdown } from './table.js';
import { versions } from './versions.js';

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      T: { type: 'string' },
      reps: { type: 'string' },
      write: { type: 'string' },
    },
  });
  const chosen = chooseSuites(positionals);
  const lengths =
    values.T?.split(',').map((text) => wholeNumber('--T', text)) ?? (values.quick ? [512, 1024] : undefined);
  const reps = values.reps ? wholeNumber('--reps', values.reps) : values.quick ? 3 : 15;

  const measured: Row[][] = [];
  for (const suite of chosen) {
    requireGreen(suite.tests);
    const rows: Row[] = [];
    const emit = (row: Row) => {
      rows.push(row);
      if (values.json) console.log(JSON.stringify(row));
      else process.stderr.write(`${row.case} ${row.pass ?? ''} ${row.T ?? ''} ${row.peer ?? ''}\n`);
    };
    await suite.run({ suite, lengths, reps, passes: ['fwd', 'fwdbwd'], emit });
    if (!values.json) console.log(`${markdown(rows)}\n`);
    measured.push(rows);
    if (values.write) writeFileSync(values.write, speedDocument(measured, versions())); // what is measured is kept if the next suite fails
  }
}

function chooseSuites(names: string[]): Suite[] {
  if (names.length === 1 && names[0] === 'all') return Object.values(suites);
  const suite = names.length === 1 && Object.hasOwn(suites, names[0]) ? suites[names[0]] : undefined;
  if (suite) return [suite];
  const known = [...Object.keys(suites), 'all'].join(', ');
  throw new Error(`bench: expected one suite of ${known}, got '${names.join(' ')}'`);
}

function wholeNumber(option: string, text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n <= 0)
    throw new RangeError(`bench: ${option} must be positive whole numbers, got '${text}'`);
  return n;
}

main().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
