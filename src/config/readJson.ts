/** JSON files, with errors that help. Node only. */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { nearest } from './nearest.js';
import { ConfigError } from './problems.js';

/** The content of a JSON file. @throws ConfigError when it is not there (naming the nearest that is) or not JSON */
export function readJsonFile(path: string, what: string): unknown {
  const fail = (message: string) => new ConfigError(path, [{ path: '', message }]);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT') throw fail(`cannot be read: ${message}`);
    throw fail(`expected ${what}, found no file${neighbour(path)}`);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw fail(`is not valid JSON: ${(error as Error).message}`);
  }
}

function neighbour(path: string): string {
  try {
    const guess = nearest(basename(path), readdirSync(dirname(path)));
    return guess === undefined ? '' : `; did you mean ${join(dirname(path), guess)}?`;
  } catch {
    return ''; // no such folder
  }
}
