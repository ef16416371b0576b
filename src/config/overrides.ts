/** Settings given on the command line: `--train.lr=3e-4`. */

import { isRecord, resolvePaths } from './paths.js';
import { ConfigError, formatPath, type Problem, quote } from './problems.js';
import { runConfigSchema } from './runSchema.js';
import { schemasAt } from './schemaWalk.js';

/** One setting: where it goes, and its text as given. */
export interface Override {
  path: string[];
  text: string;
}

/** `--train.lr=3e-4` (the dashes may be missing) to its path and text. @throws ConfigError listing all that have another form */
export function parseOverrides(overrides: readonly string[]): Override[] {
  const problems: Problem[] = [];
  const parsed = overrides.flatMap((override): Override[] => {
    const match = /^(?:--)?([A-Za-z]\w*(?:\.[A-Za-z0-9]\w*)*)=(.*)$/s.exec(override);
    if (match) return [{ path: match[1].split('.'), text: match[2] }];
    problems.push({ path: '', message: `expected --path.of.setting=value, got ${quote(override)}` });
    return [];
  });
  if (problems.length) throw new ConfigError('overrides', problems);
  return parsed;
}

/**
 * Puts one setting into a raw run config, in place. Paths in it are relative to `folder`.
 * @returns what is wrong with its path, or undefined
 */
export function applyOverride(
  raw: Record<string, unknown>,
  { path, text }: Override,
  folder: string,
): Problem | undefined {
  const value = settingValue(raw, path, text);
  const alone = path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
  const resolved = path.reduce<unknown>((x, key) => (x as Record<string, unknown>)[key], resolvePaths(alone, folder));
  return setAt(raw, path, resolved);
}

/** JSON where the setting takes it so, else the text itself, or a list of one: whichever the schema takes first. */
function settingValue(raw: unknown, path: string[], text: string): unknown {
  const json = fromJson(text);
  const schemas = schemasAt(runConfigSchema, path, raw);
  const fits = (value: unknown) => schemas.some((schema) => schema.safeParse(value).success);
  return [json, text, [json], [text]].find(fits) ?? json;
}

function fromJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    const value = Number(text); // `.5` and `+1` are numbers too
    return text.trim() !== '' && Number.isFinite(value) ? value : text;
  }
}

function setAt(raw: Record<string, unknown>, path: string[], value: unknown): Problem | undefined {
  let node: Record<string, unknown> | unknown[] = raw;
  for (const [depth, key] of path.entries()) {
    const place = Array.isArray(node) ? Number(key) : key;
    if (Array.isArray(node) && !(Number.isInteger(place) && Number(place) < node.length))
      return { path: path.join('.'), message: `expected a place in a list of ${node.length}, got ${quote(key)}` };
    const fields = node as Record<PropertyKey, unknown>;
    if (depth === path.length - 1) {
      fields[place] = value;
      return undefined;
    }
    const child: unknown = Object.hasOwn(fields, place) ? fields[place] : {};
    if (!isRecord(child) && !Array.isArray(child)) {
      const message = `cannot be set: ${formatPath(path.slice(0, depth + 1))} is ${quote(child)}, which has no settings inside`;
      return { path: path.join('.'), message };
    }
    fields[place] = child;
    node = child as Record<string, unknown> | unknown[];
  }
  return undefined;
}
