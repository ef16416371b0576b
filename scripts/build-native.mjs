#!/usr/bin/env node
/**
 * Builds the optional native addon of `native/` with node-gyp, where a C compiler and a BLAS are: OpenBLAS, or Accelerate on macOS.
 * Prints one line: built, or why not and what to install. Options: --force builds although it is up to date, --optional never fails.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../native/', import.meta.url));
const SOURCES = ['binding.gyp', 'product.h', 'product.c', 'addon.c'];
const isMac = process.platform === 'darwin';

try {
  console.log(`native addon: ${build()}`);
} catch (error) {
  console.log(`native addon: not built: ${error.message}`);
  if (!process.argv.includes('--optional')) process.exitCode = 1;
}

function build() {
  const output = join(folder, 'build/Release/seqmix.node');
  const stampFile = join(folder, 'build/stamp');
  const sources = hashOfSources();
  const stamp = () => `${sources}\n${sha256(readFileSync(output))}\n`;
  const fresh = existsSync(output) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp();
  if (fresh && !process.argv.includes('--force')) return 'up to date';
  rmSync(join(folder, 'build'), { recursive: true, force: true }); // of other sources, or damaged: better none than that
  const flags = findBlas(process.env.CC ?? 'cc');
  nodeGyp(flags);
  writeFileSync(stampFile, stamp()); // src/backend/native.ts compares the second line before it loads the addon
  return 'built';
}

function hashOfSources() {
  const sources = SOURCES.map((name) => readFileSync(join(folder, name)));
  return sha256(Buffer.concat([Buffer.from(`${process.platform} ${process.arch}`), ...sources]));
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Compiles and links a program that uses the library, with each of the usual flags in turn. @returns the first that work */
function findBlas(compiler) {
  if (process.platform === 'win32') throw new Error('there is no build for Windows; the wasm kernels do without');
  if (!runs(compiler, ['--version']))
    throw new Error(
      `no C compiler (${compiler}); ${isMac ? 'xcode-select --install' : 'apt-get install build-essential'}`,
    );
  if (isMac) return [];
  const found = candidates().find((flags) => links(compiler, flags));
  if (!found)
    throw new Error('no OpenBLAS with headers; apt-get install libopenblas-dev (Fedora: dnf install openblas-devel)');
  return found;
}

function candidates() {
  const pkgConfig = capture('pkg-config', ['--cflags', '--libs', 'openblas']);
  return [[], pkgConfig.split(/\s+/).filter(Boolean), ['-I/usr/include/openblas']];
}

function links(compiler, flags) {
  const scratch = mkdtempSync(join(tmpdir(), 'seqmix-native-'));
  try {
    const source = join(scratch, 'probe.c');
    writeFileSync(
      source,
      '#include <cblas.h>\nint main(void) { openblas_set_num_threads(1); return cblas_isamax(0, 0, 1) != 0; }\n',
    );
    return runs(compiler, [source, '-o', join(scratch, 'probe'), ...flags, '-lopenblas']);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function nodeGyp(flags) {
  const args = ['rebuild', '--directory', folder, '--silent', ...headers()];
  const env = { ...process.env };
  for (const name of ['CFLAGS', 'LDFLAGS']) env[name] = [env[name], ...flags].filter(Boolean).join(' ');
  try {
    execFileSync(process.execPath, [findNodeGyp(), ...args], { env, stdio: 'pipe', encoding: 'utf8' });
  } catch (error) {
    const lines = `${error.stderr ?? ''}${error.stdout ?? ''}`.split('\n').filter((line) => /error/i.test(line));
    throw new Error(lines[0]?.trim() || error.message.split('\n')[0]);
  }
}

/** Node's headers, where they lie beside it (most installations have them); else node-gyp fetches them from nodejs.org. */
function headers() {
  if (process.env.npm_config_nodedir) return [];
  const prefix = dirname(dirname(realpathSync(process.execPath)));
  return existsSync(join(prefix, 'include/node/common.gypi')) ? ['--nodedir', prefix] : [];
}

/** The one that npm brings along, so that this package needs none of its own. */
function findNodeGyp() {
  const given = process.env.npm_config_node_gyp; // npm run and npx set it
  if (given && existsSync(given)) return given;
  const npm = [process.env.npm_execpath, join(dirname(process.execPath), 'npm'), '/usr/bin/npm'].find(
    (path) => path && existsSync(path),
  );
  try {
    return createRequire(realpathSync(npm)).resolve('node-gyp/bin/node-gyp.js');
  } catch {
    throw new Error('no node-gyp found beside npm; start this with npm run build:native or npx seqmix build-native');
  }
}

function runs(command, args) {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function capture(command, args) {
  try {
    return execFileSync(command, args, { stdio: ['ignore', 'pipe', 'ignore'], encoding: 'utf8' });
  } catch {
    return '';
  }
}
