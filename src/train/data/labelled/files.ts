/**
 * Labelled sequences out of files of the user's, by the ending of the name.
 *
 * `.jsonl`: one object a line, `{"x": [...], "y": ..., "dt": [...]}`. `x` is a list of numbers, or of lists of as many numbers for each
 * step; `y` a class 0, 1, 2, ..., a number or a list of numbers; `dt`, which may be missing, the time since the step before.
 *
 * `.csv`: a header, then numbers. With a column `id`, one row for each step: `id`, then `y` (or several columns that begin with y, which
 * are read from the first row of each id), perhaps `dt`, and a column for each channel. Without one, one row for each sequence: the columns
 * that begin with y, and one for each step; empty cells at the end make a shorter sequence.
 */
import { extname, relative } from 'node:path';
import { readWhole } from '../../checkpoint/files.js';
import { DataError } from '../errors.js';
import { findFiles } from '../sources.js';

/** A sequence as a file has it. */
export interface RawExample {
  /** File and line, for messages. */
  place: string;
  /** Numbers at a step; 1 where the file has plain numbers. */
  channels: number;
  /** [T * channels] */
  x: number[];
  /** Absent where the file has no label. */
  y?: number | number[];
  dt?: number[];
}

/** All examples of the files, in order. @throws DataError naming file and line of what is wrong */
export async function readExamples(patterns: readonly string[], baseDir = process.cwd()): Promise<RawExample[]> {
  const all: RawExample[] = [];
  for (const path of findFiles(patterns, baseDir)) {
    const text = new TextDecoder().decode(await readWhole(path));
    const name = relative(baseDir, path);
    const read = readers[extname(path).toLowerCase()];
    if (!read)
      throw new DataError(
        `data: ${name}: labelled sequences are read from .jsonl and .csv files, got "${extname(path)}"`,
      );
    const examples = read(text, name);
    if (examples.length === 0) throw new DataError(`data: ${name} holds no sequence`);
    all.push(...examples);
  }
  const odd = all.find(({ channels }) => channels !== all[0].channels);
  if (odd)
    throw new DataError(
      `data: ${odd.place}: expected ${all[0].channels} numbers a step as in ${all[0].place}, got ${odd.channels}`,
    );
  return all;
}

const readers: Record<string, (text: string, file: string) => RawExample[]> = { '.jsonl': jsonLines, '.csv': csv };

function jsonLines(text: string, file: string): RawExample[] {
  return text.split('\n').flatMap((line, i): RawExample[] => {
    if (line.trim() === '') return [];
    const place = `${file}:${i + 1}`;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      throw fault(place, 'a JSON object with "x" and "y"', line);
    }
    return [jsonExample(value as Record<string, unknown> | null, place)];
  });
}

function jsonExample(value: Record<string, unknown> | null, place: string): RawExample {
  const { x, y, dt } = value ?? {};
  if (!Array.isArray(x) || x.length === 0) throw fault(place, '"x" to be a list of numbers, or of lists of numbers', x);
  const nested = Array.isArray(x[0]);
  const steps: unknown[][] = nested ? x : x.map((number) => [number]);
  const channels = steps[0].length;
  for (const [t, step] of steps.entries())
    if (!Array.isArray(step) || step.length !== channels || channels === 0 || !step.every(isNumber))
      throw fault(place, `step ${t} of "x" to be ${nested ? `a list of ${channels} numbers` : 'a number'}`, x[t]);
  if (y !== undefined && !isNumber(y) && !(Array.isArray(y) && y.length > 0 && y.every(isNumber)))
    throw fault(place, '"y" to be a class number, a number or a list of numbers', y);
  if (dt !== undefined && !(Array.isArray(dt) && dt.length === steps.length && dt.every(isInterval)))
    throw fault(place, `"dt" to be a list of ${steps.length} intervals, each at least 0`, dt);
  return {
    ...{ place, channels, x: (steps as number[][]).flat() },
    ...(y !== undefined && { y: y as number | number[] }),
    ...(dt !== undefined && { dt: dt as number[] }),
  };
}

const isNumber = (x: unknown): x is number => typeof x === 'number' && Number.isFinite(x);
const isInterval = (x: unknown): x is number => isNumber(x) && x >= 0;

interface CsvRow {
  place: string;
  cells: string[];
}

function csv(text: string, file: string): RawExample[] {
  const lines = text.split(/\r?\n/).map((line, i) => ({ place: `${file}:${i + 1}`, cells: cellsOf(line) }));
  const rows = lines.filter(({ cells }) => cells.some((cell) => cell !== ''));
  const header = rows.shift();
  if (!header) return [];
  const columns = (test: (name: string) => boolean) => header.cells.flatMap((name, i) => (test(name) ? [i] : []));
  const y = columns((name) => /^y/i.test(name));
  const [id, dt] = ['id', 'dt'].map((name) => columns((column) => column.toLowerCase() === name)[0]);
  const x = header.cells.map((_, i) => i).filter((i) => i !== id && i !== dt && !y.includes(i));
  if (x.length === 0) throw fault(header.place, 'a column of numbers beside id, dt and y', header.cells.join(','));
  for (const { place, cells } of rows)
    if (cells.length > header.cells.length)
      throw fault(place, `at most ${header.cells.length} cells, as the header has`, cells.join(','));
  return id === undefined ? wideRows(rows, header, { x, y }) : longRows(rows, header, { id, dt, x, y });
}

const cellsOf = (line: string) => line.split(',').map((cell) => cell.trim().replace(/^"(.*)"$/, '$1'));

/** One row for each sequence. */
function wideRows(rows: CsvRow[], header: CsvRow, columns: { x: number[]; y: number[] }): RawExample[] {
  return rows.map((row) => {
    const last = columns.x.findLastIndex((i) => (row.cells[i] ?? '') !== '');
    if (last < 0) throw fault(row.place, 'a number in some column of steps', row.cells.join(','));
    const x = columns.x.slice(0, last + 1).map((i) => cell(row, header, i));
    return { place: row.place, channels: 1, x, ...labelOf(row, header, columns.y) };
  });
}

/** One row for each step; the rows of an id stand together. */
function longRows(
  rows: CsvRow[],
  header: CsvRow,
  { id, dt, x, y }: { id: number; dt: number | undefined; x: number[]; y: number[] },
): RawExample[] {
  const examples = new Map<string, RawExample>();
  let current: string | undefined;
  for (const row of rows) {
    const key = row.cells[id];
    let example = examples.get(key);
    if (example && key !== current)
      throw fault(row.place, 'the rows of an id to stand together', `id ${key} again after id ${current}`);
    if (!example) {
      example = {
        place: row.place,
        channels: x.length,
        x: [],
        ...labelOf(row, header, y),
        ...(dt !== undefined && { dt: [] }),
      };
      examples.set(key, example);
    }
    current = key;
    example.x.push(...x.map((i) => cell(row, header, i)));
    if (dt !== undefined) {
      const interval = cell(row, header, dt);
      if (interval < 0) throw fault(row.place, 'dt to be at least 0', interval);
      example.dt?.push(interval);
    }
  }
  return [...examples.values()];
}

function labelOf(row: CsvRow, header: CsvRow, y: number[]): Pick<RawExample, 'y'> {
  if (y.length === 0) return {};
  const numbers = y.map((i) => cell(row, header, i));
  return { y: numbers.length === 1 ? numbers[0] : numbers };
}

function cell({ place, cells }: CsvRow, header: CsvRow, i: number): number {
  const value = Number(cells[i]);
  if (cells[i] === undefined || cells[i] === '' || !Number.isFinite(value))
    throw fault(place, `a number in column "${header.cells[i]}"`, cells[i]);
  return value;
}

function fault(place: string, wanted: string, got: unknown): DataError {
  const text = typeof got === 'string' ? got : (JSON.stringify(got) ?? 'nothing');
  return new DataError(
    `data: ${place}: expected ${wanted}, got ${text.length > 80 ? `${text.slice(0, 77)}...` : text}`,
  );
}
