/** A checkpoint says with which code its run rounded, and a resumed run goes on with that. */
import { afterEach, beforeAll, expect, test, vi } from 'vitest';
import { installedBuild, installedNative } from '../../src/chunked/wasm/runtime.js';
import { useBackend } from '../../src/index.js';
import { startBackend } from '../../src/train/arithmetic.js';

beforeAll(() => void vi.stubEnv('SEQMIX_NATIVE', 'off')); // the same whether it is built or not
afterEach(() => vi.restoreAllMocks());

test('what is in use is recorded, whatever was asked for', async () => {
  const plain = await startBackend({ name: 'wasm', relaxedSimd: 'off' });
  expect(plain).toEqual({ backend: { name: 'wasm', relaxedSimd: 'off', native: 'off' }, warnings: [] });
  const { backend } = await startBackend({ name: 'wasm', relaxedSimd: 'auto' });
  expect(backend.relaxedSimd).toBe(installedBuild() === 'relaxed' ? 'on' : 'off');
  expect(await startBackend({ name: 'cpu' })).toEqual({ backend: { name: 'cpu' }, warnings: [] });
  await useBackend('wasm');
});

test('a resumed run takes what the checkpoint had where the config leaves the choice', async () => {
  const before = { name: 'wasm', relaxedSimd: 'off', native: 'off' } as const;
  expect(await startBackend({ name: 'wasm', native: 'auto' }, before)).toEqual({ backend: before, warnings: [] });
  expect([installedBuild(), installedNative()]).toEqual(['plain', undefined]);
});

test('another choice is allowed and said; a checkpoint that is silent compares to nothing', async () => {
  const before = { name: 'wasm', relaxedSimd: 'on', native: 'off' } as const;
  const { warnings } = await startBackend({ name: 'wasm', relaxedSimd: 'off' }, before);
  expect(warnings).toEqual([
    'not as before: backend wasm, relaxedSimd off, native off (so far backend wasm, relaxedSimd on, native off), so numbers differ in rounding',
  ]);
  expect((await startBackend({ name: 'cpu' }, before)).warnings).toHaveLength(1);
  expect((await startBackend({ name: 'wasm', relaxedSimd: 'off' }, { name: 'wasm' })).warnings).toEqual([]);
});

test('what cannot be had here is an error that says how to go on without', async () => {
  vi.spyOn(WebAssembly, 'validate').mockReturnValue(false); // an engine without relaxed SIMD
  const before = { name: 'wasm', relaxedSimd: 'on', native: 'off' } as const;
  await expect(startBackend({ name: 'wasm' }, before)).rejects.toThrow(
    /^train: the checkpoint was made with backend wasm, relaxedSimd on, native off; useBackend: relaxedSimd is 'on' but .* differ in rounding: --backend.relaxedSimd=off$/,
  );
  await expect(startBackend({ name: 'wasm', relaxedSimd: 'on' })).rejects.toThrow(
    /^useBackend: relaxedSimd is 'on' but/,
  );
});
