/**
 * npm run bench -- <suite> [--json] [--T 512,2048] [--reps 15] [--quick]
 * Prints Markdown, or with --json one object a line. --quick: few lengths and repetitions, to see that it works.
 */
import { parseArgs } from 'node:util';
import { type Context, type Row, requireGreen } from './harness.js';
import { suites } from './suites.js';
import { markdown } from './table.js';

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      T: { type: 'string' },
      reps: { type: 'string' },
    },
  });
  const suite = suites[positionals[0]];
  if (!suite || positionals.length !== 1)
    throw new Error(`bench: expected one suite of ${Object.keys(suites).join(', ')}, got '${positionals.join(' ')}'`);
  const lengths =
    values.T?.split(',').map((text) => wholeNumber('--T', text)) ?? (values.quick ? [512, 1024] : undefined);
  const reps = values.reps ? wholeNumber('--reps', values.reps) : values.quick ? 3 : 15;

  requireGreen(suite.tests);
  const rows: Row[] = [];
  const emit = (row: Row) => {
    rows.push(row);
    if (values.json) console.log(JSON.stringify(row));
    else process.stderr.write(`${row.case} ${row.pass ?? ''} ${row.T ?? ''} ${row.peer ?? ''}\n`);
  };
  const context: Context = { suite, lengths, reps, passes: ['fwd', 'fwdbwd'], emit };
  await suite.run(context);
  if (!values.json) console.log(markdown(rows));
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
