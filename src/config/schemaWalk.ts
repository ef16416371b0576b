/** Looks inside zod schemas: which keys stand where, of what kind a setting is, what remains of a config that is partly wrong. */
import * as z from 'zod';

export type Path = readonly PropertyKey[];

/** The definition of a schema without its optional, default and nullable wrappers. */
export function defOf(schema: z.ZodType): z.core.$ZodTypes['_zod']['def'] {
  return unwrap(schema)._zod.def as z.core.$ZodTypes['_zod']['def'];
}

/** The schema without its optional, default and nullable wrappers. */
export function unwrap(schema: z.core.$ZodType): z.ZodType {
  const def = schema._zod.def as z.core.$ZodTypes['_zod']['def'];
  switch (def.type) {
    case 'optional':
    case 'nullable':
    case 'default':
    case 'prefault':
    case 'readonly':
      return unwrap(def.innerType);
    case 'pipe':
      return unwrap(def.in);
    default:
      return schema as z.ZodType;
  }
}

/** The schemas a path may lead to; `raw` picks the branch of a union where it can. */
export function schemasAt(schema: z.core.$ZodType, path: Path, raw?: unknown): z.ZodType[] {
  const inner = unwrap(schema);
  const def = defOf(inner);
  if (def.type === 'union') return branchesFor(def.options, raw).flatMap((option) => schemasAt(option, path, raw));
  if (path.length === 0) return [schema as z.ZodType];
  const [key, ...rest] = path;
  const value = (raw as Record<PropertyKey, unknown> | undefined | null)?.[key];
  if (def.type === 'object') {
    const child = Object.hasOwn(def.shape, key) ? def.shape[key as string] : undefined;
    return child ? schemasAt(child, rest, value) : [];
  }
  if (def.type === 'array') return schemasAt(def.element, rest, value);
  if (def.type === 'tuple') return def.items[Number(key)] ? schemasAt(def.items[Number(key)], rest, value) : [];
  if (def.type === 'record') return schemasAt(def.valueType, rest, value);
  return [];
}

/** The names allowed at a path: keys of an object, values of an enum or literal. */
export function keysAt(schema: z.core.$ZodType, path: Path, raw?: unknown): string[] {
  const names = schemasAt(schema, path, raw).flatMap((found) => {
    const def = defOf(found);
    if (def.type === 'object') return Object.keys(def.shape);
    if (def.type === 'enum') return Object.values(def.entries).map(String);
    return def.type === 'literal' ? def.values.map(String) : [];
  });
  return [...new Set(names)];
}

/** Every setting a schema knows, dotted: `train.lr`. Lists and unions end a path. */
export function leafPaths(schema: z.core.$ZodType, prefix = ''): string[] {
  const def = defOf(schema as z.ZodType);
  if (def.type === 'union')
    return [...new Set([...def.options.flatMap((option) => leafPaths(option, prefix)), ...(prefix ? [prefix] : [])])];
  if (def.type !== 'object') return prefix ? [prefix] : [];
  return Object.entries(def.shape).flatMap(([key, child]) => leafPaths(child, prefix ? `${prefix}.${key}` : key));
}

/** What T may be after `lenientParse`: any part may be missing. */
export type Lenient<T> = T extends readonly (infer E)[]
  ? (Lenient<E> | undefined)[]
  : T extends object
    ? { [K in keyof T]?: Lenient<T[K]> }
    : T | undefined;

/** The parts of `raw` that fit, with defaults filled in; whatever is wrong is left undefined. So that rules across settings can be checked too. */
export function lenientParse<S extends z.ZodType>(schema: S, raw: unknown): Lenient<z.output<S>> | undefined {
  return lenient(schema, raw) as Lenient<z.output<S>> | undefined;
}

function lenient(schema: z.core.$ZodType, raw: unknown): unknown {
  const whole = z.safeParse(schema, raw);
  if (whole.success) return whole.data;
  const def = defOf(schema as z.ZodType);
  if (def.type === 'object') {
    const fields = raw === undefined ? {} : raw;
    if (typeof fields !== 'object' || fields === null || Array.isArray(fields)) return undefined;
    const known = Object.entries(def.shape);
    return Object.fromEntries(
      known.map(([key, child]) => [key, lenient(child, (fields as Record<string, unknown>)[key])]),
    );
  }
  if (def.type === 'array' && Array.isArray(raw)) return raw.map((item) => lenient(def.element, item));
  if (def.type === 'union') {
    const branches = branchesFor(def.options, raw);
    return branches.length === 1 ? lenient(branches[0], raw) : undefined;
  }
  return undefined;
}

/** The branches of a union that `raw` could mean: those whose literal fields do not contradict it. */
function branchesFor(options: readonly z.core.$ZodType[], raw: unknown): readonly z.core.$ZodType[] {
  const flat = options.flatMap((option): readonly z.core.$ZodType[] => {
    const def = defOf(option as z.ZodType);
    return def.type === 'union' ? def.options : [option];
  });
  if (raw === undefined || raw === null) return flat;
  const isObject = typeof raw === 'object' && !Array.isArray(raw);
  const kind = flat.filter((option) => (defOf(option as z.ZodType).type === 'object') === isObject);
  const matching = kind.filter((option) => literalsFit(option, raw));
  return matching.length ? matching : kind.length ? kind : flat;
}

function literalsFit(option: z.core.$ZodType, raw: unknown): boolean {
  const def = defOf(option as z.ZodType);
  if (def.type !== 'object') return true;
  return Object.entries(def.shape).every(([key, child]) => {
    const field = defOf(child as z.ZodType);
    if (field.type !== 'literal') return true;
    const value = (raw as Record<string, unknown>)[key];
    const given = value === undefined ? defaultOf(child as z.ZodType) : value;
    return field.values.includes(given as never);
  });
}

/** What a field is where it is left out. */
function defaultOf(schema: z.ZodType): unknown {
  const def = schema._zod.def as z.core.$ZodTypes['_zod']['def'];
  return def.type === 'default' ? def.defaultValue : undefined;
}
