/** `npm run bench -- <suite>`: Markdown, or one JSON object a line. `npm run bench -- --help` lists the options. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { Argument, Command, InvalidArgumentError } from 'commander';
import { speedSection, withSection } from './document.js';
import { type Row, requireGreen } from './harness.js';
import { suites } from './suites.js';
import { markdown } from './table.js';
import { versions } from './versions.js';

interface Options {
  json?: boolean;
  quick?: boolean;
  T?: number[];
  reps?: number;
  write?: string;
}

const command = new Command('npm run bench --')
  .description('Times ours against named peers. Nothing is measured while a test of it is red.')
  .addArgument(new Argument('<suite>', 'what to measure').choices([...Object.keys(suites), 'all']))
  .option('--json', 'one JSON object a line instead of Markdown')
  .option(
    '--T <lengths>',
    'lengths (positions when decoding), separated by commas; default: those of the suite',
    lengths,
  )
  .option('--reps <n>', 'repetitions, in turns with the peers; default 15', wholeNumber)
  .option('--quick', 'few lengths and repetitions, to see that it works')
  .option('--write <file>', 'put the section of each suite into a page of figures, too, in the place of an older one')
  .action(main);

async function main(name: string, { json, quick, write, ...options }: Options): Promise<void> {
  const chosen = name === 'all' ? Object.values(suites) : [suites[name]];
  const lengths = options.T ?? (quick ? [512, 1024] : undefined);
  const reps = options.reps ?? (quick ? 3 : 15);

  for (const suite of chosen) {
    requireGreen(suite.tests);
    const rows: Row[] = [];
    const emit = (row: Row) => {
      rows.push(row);
      if (json) console.log(JSON.stringify(row));
      else process.stderr.write(`${row.case} ${row.pass ?? ''} ${row.T ?? ''} ${row.peer ?? ''}\n`);
    };
    await suite.run({ suite, lengths, reps, passes: ['fwd', 'fwdbwd'], emit });
    if (!json) console.log(`${markdown(rows)}\n`);
    if (write) putInto(write, speedSection(rows, versions())); // what is measured is kept if the next suite fails
  }
}

/** Adds the section to the page, or puts it in the place of the older one. */
function putInto(file: string, section: string): void {
  writeFileSync(file, withSection(existsSync(file) ? readFileSync(file, 'utf8') : undefined, section));
}

function lengths(text: string): number[] {
  return text.split(',').map(wholeNumber);
}

function wholeNumber(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n <= 0) throw new InvalidArgumentError(`Expected positive whole numbers, got '${text}'.`);
  return n;
}

command.parseAsync().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
