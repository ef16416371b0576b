/** The native addon: what it is asked for, what it refuses, and that it computes where the tensors lie. */
import * as tf from '@tensorflow/tfjs';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { chooseNative, libraryName, type NativeAddon, nativeRequest, refusalOf } from '../../src/backend/native.js';
import { multiply, multiplyAll } from '../../src/chunked/product/index.js';
import { installedNative, WasmContext } from '../../src/chunked/wasm/runtime.js';
import { useBackend } from '../../src/index.js';
import { productOracle } from '../oracle/product.js';
import { normal } from '../support/tensors.js';
import { nativeAddon } from './native.js';

afterEach(async () => {
  vi.unstubAllEnvs();
  await useBackend('wasm');
});

describe('the request', () => {
  test('the option goes before the environment variable, and both are checked', async () => {
    vi.stubEnv('SEQMIX_NATIVE', 'off');
    expect([nativeRequest(undefined), nativeRequest('auto')]).toEqual(['off', 'auto']);
    expect(chooseNative(undefined)).toBeUndefined();
    vi.stubEnv('SEQMIX_NATIVE', '');
    expect(nativeRequest(undefined)).toBe('auto');
    vi.stubEnv('SEQMIX_NATIVE', 'perhaps');
    await expect(useBackend()).rejects.toThrow(
      "environment variable SEQMIX_NATIVE must be one of 'auto', 'on', 'off', got 'perhaps'",
    );
    await expect(useBackend('wasm', { native: 'yes' as 'on' })).rejects.toThrow(
      "useBackend: native must be one of 'auto', 'on', 'off', got 'yes'",
    );
    await expect(useBackend('wasm', { native: 'off', nativeThreads: 0 })).rejects.toThrow(
      'useBackend: nativeThreads must be a whole number from 1 to 1024, got 0',
    );
    await useBackend('cpu'); // which asks for none
  });
});

describe.skipIf(!nativeAddon)('the addon', () => {
  const addon = nativeAddon as NativeAddon;

  test('is installed and taken off by useBackend, and names its library', async () => {
    for (const native of ['on', 'off', 'auto'] as const) {
      await useBackend('wasm', { native });
      expect(installedNative()).toBe(native === 'off' ? undefined : addon);
    }
    expect(libraryName(addon)).toMatch(/^(OpenBLAS \d\S*|Accelerate) \w+$/);
  });

  test('the self-check passes it, and none that is a digit off, leaves a cell, or forgets a transpose or the bias', () => {
    type Call = Parameters<NativeAddon['multiply']>;
    const broken = (change: (call: Call) => void): NativeAddon => ({
      ...addon,
      multiply: (...call: Call) => change(call),
    });
    type WithinCall = Parameters<NativeAddon['multiplyWithin']>;
    const within = (multiplyWithin: NativeAddon['multiplyWithin']): NativeAddon => ({ ...addon, multiplyWithin });
    const floats = (call: Call) => new Float32Array(call[0] as ArrayBuffer);
    expect(refusalOf(addon)).toBeUndefined();
    const faults = [
      broken((call) => {
        addon.multiply(...call);
        floats(call)[call[3] / 4 + call[5] * call[6] - 1] += 1;
      }),
      broken((call) => {
        addon.multiply(...call);
        floats(call)[call[3] / 4] = Number.NaN;
      }),
      broken(([memory, a, b, c, bias, M, N, K, , transposeB]) =>
        addon.multiply(memory, a, b, c, bias, M, N, K, false, transposeB),
      ),
      broken(([memory, a, b, c, , ...rest]) => addon.multiply(memory, a, b, c, 0, ...rest)),
      within((...call) => addon.multiplyWithin(...(call.with(-1, false) as WithinCall))),
      within((...call) => addon.multiplyWithin(...(call.with(-1, true) as WithinCall))),
      within((...call) => {
        addon.multiplyWithin(...call);
        new Float32Array(call[0] as ArrayBuffer)[call[5] / 4 + call[8]] = 0; // the first float between two rows
      }),
    ];
    for (const fault of faults)
      expect(refusalOf(fault)).toMatch(/its library computes wrongly here \(\w+: 16 x 32 x 16.*OPENBLAS_CORETYPE/);
  });

  test('a matrix outside the memory, or badly aligned, is an error, for each matrix and in a batch', () => {
    const memory = new ArrayBuffer(4 * 100);
    const product = [4, 3, 5, false, false] as const; // a 80 bytes, b 60, c 48
    const outside = (what: string) => `seqmix native: ${what} must be aligned to 4 bytes and end within the memory of`;
    expect(() => addon.multiply(memory, 0, 80, 352, 0, ...product)).not.toThrow(); // c ends where the memory does
    expect(() => addon.multiply(memory, 324, 80, 140, 0, ...product)).toThrow(outside('a [4, 5] at byte 324'));
    expect(() => addon.multiply(memory, 0, 344, 140, 0, ...product)).toThrow(outside('b [5, 3] at byte 344'));
    expect(() => addon.multiply(memory, 0, 80, 356, 0, ...product)).toThrow(outside('c [4, 3] at byte 356'));
    expect(() => addon.multiply(memory, 0, 80, 140, 392, ...product)).toThrow(outside('bias [1, 3] at byte 392'));
    expect(() => addon.multiply(memory, 2, 80, 140, 0, ...product)).toThrow(outside('a [4, 5] at byte 2'));
    expect(() => addon.multiply(memory, 324, 80, 140, 0, 4, 3, 5, true, false)).toThrow(
      outside('a [5, 4] at byte 324'),
    );
    expect(() => addon.multiply(memory, 4, 4, 4, 0, 2 ** 31 - 1, 2 ** 31 - 1, 1, false, false)).toThrow(RangeError);
    const offsets = Uint32Array.of(0, 80, 140, 0, 80, 2 ** 32 - 4);
    expect(() => addon.multiplyAll(memory, offsets, 0, ...product)).toThrow(outside('c [4, 3] at byte 4294967292'));
  });

  test('so is one within a larger one, counted by its stride up to its last float', () => {
    const memory = new ArrayBuffer(4 * 100);
    const product = [4, 3, 5, false, false, true] as const; // a 3 strides of 6 and 5: 92 bytes; b 4 of 4 and 3: 76; c 3 of 7 and 3: 96
    const outside = (what: string) => `seqmix native: ${what} must be aligned to 4 bytes and end within the memory of`;
    expect(() => addon.multiplyWithin(memory, 0, 6, 92, 4, 304, 7, ...product)).not.toThrow(); // c ends where the memory does
    expect(() => addon.multiplyWithin(memory, 312, 6, 92, 4, 168, 7, ...product)).toThrow(
      outside('a [4, 5] at byte 312'),
    );
    expect(() => addon.multiplyWithin(memory, 0, 6, 328, 4, 168, 7, ...product)).toThrow(
      outside('b [5, 3] at byte 328'),
    );
    expect(() => addon.multiplyWithin(memory, 0, 6, 92, 4, 308, 7, ...product)).toThrow(
      outside('c [4, 3] at byte 308'),
    );
    expect(() => addon.multiplyWithin(memory, 0, 4, 92, 4, 168, 7, ...product)).toThrow(
      'stride of a must be at least its 5',
    );
    expect(() => addon.multiplyWithin(memory, 0, 6, 92, 4, 168, 2.5, ...product)).toThrow(
      'a stride must be a whole number',
    );
    const call = (...args: unknown[]) => (addon.multiplyWithin as (...args: unknown[]) => void)(...args);
    expect(() => call(memory, 0, 6, 92, 4, 168, 7, 4, 3, 5, false, false, 1)).toThrow('add must be a boolean');
  });

  test('one of an older version is refused, and asked to be built anew', () => {
    const { multiplyWithin, ...old } = addon;
    expect(refusalOf(old as NativeAddon)).toMatch(/older version.*build-native --force/);
  });

  test('arguments that are none are errors too', () => {
    const memory = new ArrayBuffer(400);
    const call = (...args: unknown[]) => (addon.multiply as (...args: unknown[]) => void)(...args);
    expect(() => call()).toThrow('wrong number of arguments');
    expect(() => call({}, 0, 80, 140, 0, 4, 3, 5, false, false)).toThrow('must be an ArrayBuffer or a Uint8Array');
    expect(() => call(memory, -4, 80, 140, 0, 4, 3, 5, false, false)).toThrow('whole number from 0 to 4294967295');
    expect(() => call(memory, 0, 80, 140, 0, 4.5, 3, 5, false, false)).toThrow('M must be a whole number');
    expect(() => call(memory, 0, 80, 140, 0, Number.NaN, 3, 5, false, false)).toThrow('M must be a whole number');
    expect(() => call(memory, 0, 80, 140, 0, 4, 3, 5, 0, 1)).toThrow('must be booleans');
    expect(() => addon.multiplyAll(memory, Uint32Array.of(0, 80), 0, 4, 3, 5, false, false)).toThrow('of triples');
    expect(() => addon.setThreads(0)).toThrow('threads must be at least 1');
    const detached = new ArrayBuffer(400);
    structuredClone(detached, { transfer: [detached] });
    expect(() => call(detached, 0, 80, 140, 0, 4, 3, 5, false, false)).toThrow('within the memory of 0 bytes');
  });

  /** a [9, 20], b [20, 11], bias [11] and room for c [9, 11], after one float, with what c should be. */
  function example(Buffer: typeof ArrayBuffer | typeof SharedArrayBuffer) {
    const [M, N, K] = [9, 11, 20];
    const [a, b, bias] = [normal(1, M * K), normal(2, K * N), normal(3, N)];
    const memory = new Float32Array(new Buffer(4 * (1 + M * K + K * N + N + M * N)));
    memory.set([0, ...a, ...b, ...bias]);
    const at = [1, 1 + M * K, 1 + M * K + K * N + N, 1 + M * K + K * N].map((i) => 4 * i);
    const want = productOracle(a, b, { M, N, K }).c.map((x, i) => x + bias[i % N]);
    return { memory, at: at as [number, number, number, number], sizes: [M, N, K, false, false] as const, want };
  }

  test.each([ArrayBuffer, SharedArrayBuffer])('computes in a %o, with any number of threads', (Buffer) => {
    const { memory, at, sizes, want } = example(Buffer);
    const { buffer } = memory;
    for (const threads of [2, 1]) {
      addon.setThreads(threads);
      memory.subarray(at[2] / 4).fill(Number.NaN);
      addon.multiply(buffer instanceof ArrayBuffer ? buffer : new Uint8Array(buffer), ...at, ...sizes);
      memory.subarray(at[2] / 4).forEach((x, i) => {
        expect(x).toBeCloseTo(want[i], 5);
      });
    }
  });

  test('memory that grows between calls, and lies past 2 GiB', () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536 });
    for (const pages of [1, 36_000]) {
      memory.grow(pages);
      const { buffer } = memory;
      const start = buffer.byteLength - 4096;
      const { memory: inputs, at, sizes, want } = example(ArrayBuffer);
      new Float32Array(buffer, start, inputs.length).set(inputs);
      const [a, b, c, bias] = at.map((offset) => start + offset);
      addon.multiply(buffer as ArrayBuffer, a, b, c, bias, ...sizes);
      new Float32Array(buffer, c, want.length).forEach((x, i) => {
        expect(x).toBeCloseTo(want[i], 5);
      });
    }
    expect(memory.buffer.byteLength).toBeGreaterThan(2 ** 31);
  });

  test('a product of a grown backend, one at a time and in a batch, equals the kernel of the same call', async () => {
    await useBackend('wasm', { native: 'on' });
    const ctx = WasmContext.of(tf.backend());
    const kernelOnly = new WasmContext(ctx.backend, ctx.kernels);
    const ballast: tf.Tensor[] = [];
    const before = ctx.memory.buffer;
    while (ctx.memory.buffer === before) ballast.push(tf.zeros([1 << 20]));
    const product = { M: 6, N: 10, K: 31, transposeA: true };
    const [a, b, bias] = [tf.tensor(normal(4, 3 * 186)), tf.tensor(normal(5, 3 * 310)), tf.tensor(normal(6, 10))];
    const results = [ctx, kernelOnly].map((context) => {
      const [one, all] = [tf.fill([60], Number.NaN), tf.fill([3 * 60], Number.NaN)];
      const [pa, pb, pBias, pOne, pAll] = [a, b, bias, one, all].map((x) => context.ptr(x));
      multiply(context, pa, pb, pBias, pOne, product);
      const triples = [0, 1, 2].map((i): [number, number, number] => [pa + 744 * i, pb + 1240 * i, pAll + 240 * i]);
      multiplyAll(context, triples, pBias, product);
      return [...one.dataSync(), ...all.dataSync()];
    });
    results[0].forEach((x, i) => {
      expect(x).toBeCloseTo(results[1][i], 5);
    });
    expect(results[0].slice(0, 60)).toEqual(results[0].slice(60, 120)); // the first of the batch is the one alone
    tf.dispose([a, b, bias, ...ballast]);
  });
});
