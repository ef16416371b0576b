/** Turns what a zod schema finds wrong into one error that lists every problem: its path, what was expected, what came, the nearest right name. */
import type { z } from 'zod';
import { nearest } from './nearest.js';
import { keysAt, type Path } from './schemaWalk.js';

/** One thing wrong with a config. `path` is dotted (`train.lr`, `model.mixers[2].numHeads`), empty for the whole. */
export interface Problem {
  path: string;
  message: string;
}

/** Every problem of one config in one error. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  /** @param source the file or name of the config, as the reader knows it */
  constructor(
    readonly source: string,
    readonly problems: readonly Problem[],
  ) {
    const lines = problems.map(({ path, message }) => `  ${path ? `${path}: ` : ''}${message}`);
    super(`${source}: ${problems.length} problem${problems.length === 1 ? '' : 's'}\n${lines.join('\n')}`);
  }
}

/** The problems `schema` finds in `raw`; empty when it fits. `at` is put before each path. */
export function schemaProblems(schema: z.ZodType, raw: unknown, at: Path = []): Problem[] {
  const result = schema.safeParse(raw);
  if (result.success) return [];
  return result.error.issues.flatMap((issue) => describeIssue(schema, raw, issue, at));
}

/** `schema.parse`, but throws a `ConfigError` with every problem. */
export function parseConfig<S extends z.ZodType>(schema: S, raw: unknown, source: string): z.output<S> {
  const result = schema.safeParse(raw);
  if (result.success) return result.data;
  throw new ConfigError(source, schemaProblems(schema, raw));
}

/** `['model', 'mixers', 2, 'type']` to `model.mixers[2].type`. */
export function formatPath(path: Path): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`;
    return text ? `${text}.${String(key)}` : String(key);
  }, '');
}

/** A value as it stands in JSON, cut to a readable length. */
export function quote(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

type Issue = z.core.$ZodIssue;

function describeIssue(schema: z.ZodType, raw: unknown, issue: Issue, at: Path): Problem[] {
  const path = formatPath([...at, ...issue.path]);
  const value = valueAt(raw, issue.path);
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => ({
        path: formatPath([...at, ...issue.path, key]),
        message: `unknown key (with value ${quote((value as Record<string, unknown>)[key])})${hint(key, keysAt(schema, issue.path, raw))}`,
      }));
    case 'invalid_union':
      return describeUnion(schema, raw, issue, at);
    case 'invalid_value':
      return [{ path, message: expectOneOf(issue.values.map(String), value) }];
    case 'invalid_type':
      return [{ path, message: expected(TYPE_WORDS[issue.expected] ?? issue.expected, value) }];
    case 'too_small':
      return [{ path, message: expected(bound(issue.origin, issue.inclusive ? '>=' : '>', issue.minimum), value) }];
    case 'too_big':
      return [{ path, message: expected(bound(issue.origin, issue.inclusive ? '<=' : '<', issue.maximum), value) }];
    default:
      return [{ path, message: `${issue.message}, got ${quote(value)}` }];
  }
}

/** Of a union, only the branch the writer most likely meant is reported: the one whose problems lie deepest. */
function describeUnion(schema: z.ZodType, raw: unknown, issue: Issue & { code: 'invalid_union' }, at: Path): Problem[] {
  const path = [...issue.path];
  const value = valueAt(raw, path);
  if ('discriminator' in issue && typeof issue.discriminator === 'string') {
    const parent = path.at(-1) === issue.discriminator ? path.slice(0, -1) : path;
    const kinds = keysAt(schema, [...parent, issue.discriminator], raw);
    const given = (valueAt(raw, parent) as Record<string, unknown> | undefined)?.[issue.discriminator];
    return [{ path: formatPath([...at, ...parent, issue.discriminator]), message: expectOneOf(kinds, given) }];
  }
  const branches = issue.errors.filter((issues) => !issues.some(isRootMismatch));
  const branch = branches[0];
  if (branch) return branch.flatMap((inner) => describeIssue(schema, raw, prefixed(inner, path), at));
  const kinds = issue.errors.flatMap((issues) => issues.flatMap(wantedAtRoot));
  const names = issue.errors.flatMap((issues) =>
    issues.flatMap((inner) => (inner.code === 'invalid_value' ? inner.values.map(String) : [])),
  );
  const guess = typeof value === 'string' ? hint(value, names) : '';
  return [{ path: formatPath([...at, ...path]), message: expected([...new Set(kinds)].join(' or '), value) + guess }];
}

/** The value is not even of the branch's kind (a string where an object is wanted). */
const isRootMismatch = (issue: Issue) =>
  issue.path.length === 0 && (issue.code === 'invalid_type' || issue.code === 'invalid_value');

const wantedAtRoot = (issue: Issue): string[] => {
  if (issue.code === 'invalid_type') return [TYPE_WORDS[issue.expected] ?? issue.expected];
  return issue.code === 'invalid_value' ? issue.values.map((v) => quote(v)) : [];
};

const prefixed = (issue: Issue, path: Path): Issue => ({ ...issue, path: [...path, ...issue.path] }) as Issue;

const TYPE_WORDS: Record<string, string> = {
  int: 'an integer',
  number: 'a number',
  string: 'a string',
  boolean: 'true or false',
  object: 'an object',
  array: 'a list',
  record: 'an object',
};

function bound(origin: string, sign: string, limit: number | bigint): string {
  if (origin === 'number' || origin === 'int') return `a number ${sign} ${limit}`;
  const what = origin === 'string' ? 'a string of length' : 'a list of length';
  return `${what} ${sign} ${limit}`;
}

const expected = (what: string, value: unknown) => `expected ${what}, got ${quote(value)}`;

function expectOneOf(allowed: string[], value: unknown): string {
  const list = allowed.map((name) => JSON.stringify(name)).join(', ');
  const guess = typeof value === 'string' ? hint(value, allowed) : '';
  return `${expected(allowed.length === 1 ? list : `one of ${list}`, value)}${guess}`;
}

function hint(name: string, allowed: readonly string[]): string {
  const guess = nearest(name, allowed);
  return guess === undefined ? '' : `; did you mean ${JSON.stringify(guess)}?`;
}

function valueAt(raw: unknown, path: Path): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined | null)?.[key], raw);
}
