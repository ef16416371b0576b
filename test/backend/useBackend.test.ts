import * as tf from '@tensorflow/tfjs';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { checkMadd, chooseBuild, type Madd } from '../../src/backend/relaxedSimd.js';
import { swiGlu } from '../../src/chunked/index.js';
import { installedBuild, supportsRelaxedSimd } from '../../src/chunked/wasm/runtime.js';
import { useBackend } from '../../src/index.js';
import { runFresh } from './fresh.js';

afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  await useBackend('wasm');
});

const silu1 = () => swiGlu({ gate: tf.tensor1d([1]), up: tf.tensor1d([1]) }).dataSync()[0];

describe('useBackend', () => {
  test('switches between wasm and cpu, and tensors go along', async () => {
    const x = tf.tensor1d([1, 2, 3]);
    for (const name of ['cpu', 'wasm', 'cpu', 'wasm'] as const) {
      await useBackend(name);
      expect(tf.getBackend()).toBe(name);
      expect(tf.sum(tf.mul(x, x)).dataSync()[0]).toBe(14);
      expect(silu1()).toBeCloseTo(0.7310586, 6);
    }
  });

  test('concurrent calls run one after the other: the last one wins, a refused one does no harm', async () => {
    const results = await Promise.allSettled([
      useBackend('cpu'),
      useBackend('wasm', { relaxedSimd: 'off' }),
      useBackend('nowhere' as 'cpu'),
      useBackend('cpu'),
      useBackend(),
    ]);
    expect(results.map((r) => r.status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
    expect(tf.getBackend()).toBe('wasm');
    expect(silu1()).toBeCloseTo(0.7310586, 6);
  });

  test('refuses names and options it does not know', async () => {
    await expect(useBackend('nowhere' as 'cpu')).rejects.toThrow(
      "useBackend: name must be one of 'wasm', 'webgpu', 'tensorflow', 'cpu', got 'nowhere'",
    );
    await expect(useBackend('wasm', { relaxedSimd: 'yes' as 'on' })).rejects.toThrow(
      "useBackend: relaxedSimd must be one of 'auto', 'on', 'off', got 'yes'",
    );
    vi.stubEnv('SEQMIX_RELAXED_SIMD', 'maybe');
    await expect(useBackend()).rejects.toThrow('environment variable SEQMIX_RELAXED_SIMD must be one of');
  });

  test('a backend that does not start is an error with the remedy, and the one before stays', async () => {
    tf.registerBackend('tensorflow', () => {
      throw new Error('no library here');
    });
    vi.spyOn(console, 'warn').mockImplementation(() => {});
    await expect(useBackend('tensorflow')).rejects.toThrow(/tensorflow backend did not start.*reinstall/);
    tf.removeBackend('tensorflow');
    expect(tf.getBackend()).toBe('wasm');
    expect(silu1()).toBeCloseTo(0.7310586, 6);
  });

  test('both builds of the kernels compute', async () => {
    for (const relaxedSimd of ['off', 'on'] as const) {
      await useBackend('wasm', { relaxedSimd });
      expect(installedBuild()).toBe(relaxedSimd === 'on' ? 'relaxed' : 'plain');
      expect(silu1()).toBeCloseTo(0.7310586, 6);
    }
    expect(supportsRelaxedSimd()).toBe(true);
  });

  test('a new instance of the wasm backend gets kernels, and the stock ones below the fixes are set up', async () => {
    const factory = tf.findBackendFactory('wasm');
    const old = tf.backend();
    await useBackend('cpu');
    tf.removeBackend('wasm');
    tf.registerBackend('wasm', factory, 2);
    await useBackend('wasm');
    expect(tf.backend()).not.toBe(old);
    expect(silu1()).toBeCloseTo(0.7310586, 6);
    expect(tf.sum(tf.tensor1d([1, 2], 'int32')).dataSync()[0]).toBe(3); // the stock kernel, handed on by the fix
    expect(tf.add(tf.ones([2]), 1).dataSync()[1]).toBe(2);
  });
});

describe('relaxed SIMD', () => {
  test('the check accepts one rounding or two, and nothing else', () => {
    const f = Math.fround;
    const two: Madd = (a, b, c) => f(f(a * b) + c);
    const one: Madd = (a, b, c) => f(a * b + c); // exact in float64 for the values the check uses
    const swapped: Madd = (a, b, c) => f(a + b * c);
    expect([two, one].map(checkMadd)).toEqual([undefined, undefined]);
    expect(checkMadd(swapped)).toContain('2 * 3 + 4 gave 14, expected 10');
    expect(checkMadd((a, b, c) => one(a, b, c) * (1 + 2 ** -23))).toContain('multiply-add is wrong');
    expect(checkMadd((a, b, c) => (Number.isNaN(a) ? 0 : one(a, b, c)))).toContain('expected NaN');
  });

  test('an engine without it: auto takes the plain build, on throws with the remedy', () => {
    vi.spyOn(WebAssembly, 'validate').mockReturnValue(false);
    expect(chooseBuild('auto')).toBe('plain');
    expect(chooseBuild('off')).toBe('plain');
    expect(() => chooseBuild('on')).toThrow(/this engine does not compile it; use Node 20 or later/);
  });

  test('the option goes before the environment variable', () => {
    vi.stubEnv('SEQMIX_RELAXED_SIMD', 'off');
    expect(chooseBuild()).toBe('plain');
    expect(chooseBuild('on')).toBe('relaxed');
    vi.stubEnv('SEQMIX_RELAXED_SIMD', '');
    expect(chooseBuild()).toBe('relaxed');
  });
});

describe('a fresh process', () => {
  const script = (name: string) => `
    import * as tf from '@tensorflow/tfjs';
    import { useBackend } from './src/index.ts';
    import { installedBuild } from './src/chunked/wasm/runtime.ts';
    const log1p = () => tf.getKernel('Log1p', 'wasm');
    const before = log1p();
    await useBackend('${name}');
    const sum = tf.sum(tf.ones([4])).dataSync()[0];
    console.log(JSON.stringify({ backend: tf.getBackend(), build: installedBuild(), sum, fixed: log1p() !== before }));
  `;

  test.each([
    ['wasm', { SEQMIX_RELAXED_SIMD: 'auto' }, { backend: 'wasm', build: 'relaxed', sum: 4, fixed: true }],
    ['wasm', { SEQMIX_RELAXED_SIMD: 'off' }, { backend: 'wasm', build: 'plain', sum: 4, fixed: true }],
    ['cpu', {}, { backend: 'cpu', sum: 4, fixed: false }],
  ])(
    '%s %j starts from the installed packages, prints nothing of its own, changes nothing before the call',
    async (name, env, want) => {
      const { stdout, stderr } = await runFresh(script(name), env);
      expect(JSON.parse(stdout)).toEqual(want);
      expect(stderr).toBe('');
    },
  );

  test.each([
    ['webgpu', /WebGPU in Node needs the package webgpu; npm install webgpu/],
    ['tensorflow', /needs a native package; npm install @tensorflow\/tfjs-node@4\.22\.0/],
  ])('%s, where its package is missing, is an error that says what to install', async (name, message) => {
    // The loader hook makes the packages missing also where they are installed.
    const blocked = `
      import { register } from 'node:module';
      register('data:text/javascript,' + encodeURIComponent(\`
        export function resolve(name, context, next) {
          if (/^(webgpu|@tensorflow.tfjs-(node|node-gpu|backend-webgpu))$/.test(name)) throw new Error('Cannot find package ' + name);
          return next(name, context);
        }\`));
      const tf = await import('@tensorflow/tfjs');
      const { useBackend } = await import('./src/index.ts');
      await useBackend('wasm');
      const message = await useBackend('${name}').then(() => 'none', (error) => error.message);
      console.log(message + ' | ' + tf.getBackend());
    `;
    const { stdout } = await runFresh(blocked);
    expect(stdout).toMatch(message);
    expect(stdout.trim().endsWith('| wasm')).toBe(true);
  });
});
