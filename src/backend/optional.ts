/** Packages that the user may or may not have installed, and what only Node has. */

/** True in Node (and what imitates it), where optional packages are imported by name at run time. */
export const isNode = (): boolean => globalThis.process?.versions?.node !== undefined;

/** Imports a package that is not a dependency. The name is a variable, so bundlers do not look for it. */
export async function importOptional<M>(name: string, message: string): Promise<M> {
  try {
    return (await import(/* @vite-ignore */ /* webpackIgnore: true */ name)) as M;
  } catch (cause) {
    throw new Error(`${message} (${(cause as Error).message.split('\n')[0]})`, { cause });
  }
}

/** The installed version of a package as seen from here; undefined where it is not installed, or not on Node. */
export function installedVersion(name: string): string | undefined {
  const require = globalThis.process?.getBuiltinModule?.('node:module')?.createRequire(import.meta.url);
  try {
    return (require?.(`${name}/package.json`) as { version: string } | undefined)?.version;
  } catch {
    return undefined;
  }
}
