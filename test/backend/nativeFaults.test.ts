/** A copy of the package whose addon is missing, cannot be built or is broken, run as processes: `auto` does without, `on` stops, in one line. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { temporaryFolder } from '../support/run.js';
import { nativeAddon } from './native.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const copy = temporaryFolder();
const addon = join(copy, 'native/build/Release/seqmix.node');
const stamp = join(copy, 'native/build/stamp');
const own = join(root, 'native/build/Release/seqmix.node');

beforeAll(() => {
  for (const name of ['package.json', 'dist', 'scripts', 'native'])
    cpSync(join(root, name), join(copy, name), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
});

interface Ended {
  code: unknown;
  stdout: string;
  stderr: string;
}

function node(args: string[], env: Record<string, string> = {}): Promise<Ended> {
  const options = { cwd: copy, env: { ...process.env, NODE_NO_WARNINGS: '1', ...env } };
  return new Promise((resolve) => {
    execFile(process.execPath, args, options, (error, stdout, stderr) => {
      resolve({ code: error ? (error.code ?? error.signal) : 0, stdout, stderr });
    });
  });
}

const doctor = (SEQMIX_NATIVE: 'auto' | 'on') => node(['dist/cli/index.js', 'doctor'], { SEQMIX_NATIVE });

/** What `seqmix doctor` says where nothing but the addon is at fault. */
async function expectFault(reason: string): Promise<void> {
  const [auto, on] = await Promise.all([doctor('auto'), doctor('on')]);
  expect(auto).toMatchObject({ code: 0, stderr: '' });
  expect(auto.stdout).toContain(`not in use; ${reason} (SEQMIX_NATIVE: auto)\n`);
  expect(on).toEqual({
    ...{ code: 1, stdout: '' },
    stderr: `error: useBackend: native is 'on' but ${reason}; or pass native: 'auto'\n`,
  });
}

const BUILD = 'run npx seqmix build-native (npm run build:native in a clone), which says what it needs';
const ANEW = 'run npx seqmix build-native --force, which says what it needs';

describe.skipIf(process.platform !== 'linux')('an addon that cannot be built', () => {
  const compiler = join(copy, 'compiler');

  test.each([
    { missing: 'a compiler', script: 'exit 127', says: `no C compiler (${compiler}); apt-get install build-essential` },
    {
      missing: 'OpenBLAS',
      script: 'case "$*" in *openblas*) echo "cannot find -lopenblas" >&2; exit 1;; esac; exit 0',
      says: 'no OpenBLAS with headers; apt-get install libopenblas-dev (Fedora: dnf install openblas-devel)',
    },
  ])('for want of $missing', async ({ script, says }) => {
    writeFileSync(compiler, `#!/bin/sh\n${script}\n`);
    chmodSync(compiler, 0o755);
    const env = { CC: compiler };
    const stdout = `native addon: not built: ${says}\n`;
    const asked = await node(['dist/cli/index.js', 'build-native', '--force'], env);
    expect(asked).toEqual({ code: 1, stdout, stderr: '' });
    const optional = await node(['scripts/build-native.mjs', '--optional'], env); // as `npm ci` in a clone
    expect(optional).toEqual({ code: 0, stdout, stderr: '' });
    await expectFault(`it is not built here; ${BUILD}`);
  });
});

describe.skipIf(!nativeAddon || process.platform !== 'linux')('an addon file', () => {
  const whole = existsSync(own) ? readFileSync(own) : Buffer.alloc(0);

  /** As built, unless `sealed` is false: then as it became later. */
  function put(bytes: Uint8Array, sealed = true): void {
    rmSync(join(copy, 'native/build'), { recursive: true, force: true });
    mkdirSync(join(copy, 'native/build/Release'), { recursive: true });
    writeFileSync(addon, bytes);
    const built = createHash('sha256').update(sealed ? bytes : whole);
    writeFileSync(stamp, `sources\n${built.digest('hex')}\n`);
  }

  test('that is whole is used', async () => {
    put(whole);
    const { code, stdout } = await doctor('on');
    expect({ code, used: /^native products +in use; /m.test(stdout) }).toEqual({ code: 0, used: true });
  });

  test.each([
    ['cut short', whole.subarray(0, whole.length / 2)], // the system's loader would end the process
    ['empty', new Uint8Array(0)],
    ['of text', Buffer.from('no addon at all\n'.repeat(20))],
  ])('that is %s is refused before it is loaded', async (_, bytes) => {
    put(bytes, false);
    await expectFault(`its file is damaged, or was never finished; ${ANEW}`);
  });

  test('whose build was broken off is refused', async () => {
    put(whole);
    rmSync(stamp);
    await expectFault(`its file is damaged, or was never finished; ${ANEW}`);
  });

  test('that is no addon, or one for another system, is refused with what the system says', async () => {
    put(Buffer.from('no addon at all\n'.repeat(20)));
    await expectFault(`it does not load (${addon}: invalid ELF header); ${ANEW}`);
  });

  test('whose library is gone is refused with its name', async () => {
    const name = Buffer.from('libopenblas.so.0');
    const at = whole.indexOf(name);
    expect(at).toBeGreaterThan(0);
    put(Buffer.concat([whole.subarray(0, at), Buffer.from('libnosuchbl.so.0'), whole.subarray(at + name.length)]));
    await expectFault(
      `it does not load (libnosuchbl.so.0: cannot open shared object file: No such file or directory); ${ANEW}`,
    );
  });

  test('that is damaged is not taken for up to date by the build', async () => {
    cpSync(join(root, 'native/build'), join(copy, 'native/build'), { recursive: true });
    const build = () => node(['scripts/build-native.mjs'], { CC: '/no/compiler' });
    expect(await build()).toMatchObject({ code: 0, stdout: 'native addon: up to date\n' });
    writeFileSync(addon, whole.subarray(0, 100));
    expect((await build()).stdout).toBe(
      'native addon: not built: no C compiler (/no/compiler); apt-get install build-essential\n',
    );
    expect(existsSync(addon)).toBe(false);
  });
});
