/** Attention with native products over several blocks of 256 queries: equal to our own products, used where they pay and nowhere else. */
import type * as tf from '@tensorflow/tfjs';
import { afterEach, describe, expect, test, vi } from 'vitest';
import type { NativeAddon } from '../../src/backend/native.js';
import { type FlashBiasInputs, flashAttention, flashBias } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { nativeAddon } from '../backend/native.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

type Options = Parameters<typeof flashBias>[1] & { past?: number; heads?: number; bias?: boolean };

afterEach(async () => {
  vi.restoreAllMocks();
  await useBackend('wasm');
});

const [H, K, V, RANK] = [2, 36, 30, 5];

function draw(T: number, { past = 0, heads = H, bias }: Options) {
  const S = past + T;
  const [q, k, v, phiQ, phiK, dO, dLse, table] = randomTensors(
    ...[7, [1, T, H, K], [1, S, heads, K], [1, S, heads, V]],
    ...[
      [1, T, H, RANK],
      [1, S, 1, RANK],
      [1, T, H, V],
      [1, T, H],
      [1, 1, bias ? T : 1, bias ? S : 1],
    ],
  ) as [tf.Tensor, ...tf.Tensor[]];
  return { inputs: { q, k, v, phiQ, phiK, ...(bias && { table }) }, upstreams: [dO, dLse] };
}

/** Those that have a gradient. */
function learned({ table, phiQ, phiK, ...qkv }: Record<string, tf.Tensor>, { factorGradient = true }: Options) {
  if (table) return { ...qkv, table };
  const has = (name: 'phiQ' | 'phiK') =>
    Array.isArray(factorGradient) ? factorGradient.includes(name) : factorGradient;
  return { ...qkv, ...(has('phiQ') && { phiQ }), ...(has('phiK') && { phiK }) };
}

/** Outputs and all gradients, with native products or without; and how many those were. */
async function run(native: 'on' | 'off', T: number, options: Options) {
  await useBackend('wasm', { native });
  const products = vi.spyOn(nativeAddon as NativeAddon, 'multiplyWithin');
  const { past: _, heads: __, bias: ___, ...rest } = options;
  const { inputs, upstreams } = draw(T, options);
  const all = inputs as Record<string, tf.Tensor>;
  const of = (x: Record<string, tf.Tensor>) => {
    const { table, phiQ, phiK, ...qkv } = { ...all, ...x };
    const { o, lse } = table
      ? flashAttention({ ...qkv, bias: table } as never, rest)
      : flashBias({ ...qkv, phiQ, phiK } as FlashBiasInputs, rest);
    return [o, lse];
  };
  const { outputs, grads } = outputsAndGrads(of, learned(all, options), upstreams);
  const numbers = Object.entries({ ...outputs, ...grads } as unknown as Record<string, tf.Tensor>).map(
    ([name, x]) => [name, values(x)] as const,
  );
  return { numbers, calls: products.mock.calls.length };
}

describe.skipIf(!nativeAddon)('native products', () => {
  test.each<[string, number, Options]>([
    ['two blocks', 512, {}],
    ['a ragged third one', 579, {}],
    ['all keys', 301, { causal: false }],
    ['a shared key head', 301, { heads: 1 }],
    ['a past', 301, { past: 77 }],
    ['a window over blocks', 603, { window: 290 }],
    ['documents, some too short', 600, { cuSeqlens: Int32Array.of(0, 3, 270, 271, 600) }],
    ['a dense bias', 301, { bias: true }],
    ['constant factors', 301, { factorGradient: false }],
    ['the gradient of one factor', 301, { factorGradient: ['phiK'] }],
  ])('equal our own: %s', async (_, T, options) => {
    const [own, native] = [await run('off', T, options), await run('on', T, options)];
    expect(own.calls).toBe(0);
    expect(native.calls).toBeGreaterThan(0);
    for (const [i, [name, got]] of native.numbers.entries()) expectClose(name, got, own.numbers[i][1], 3e-6);
  });

  test.each<[string, number, Options]>([
    ['few queries', 255, {}],
    ['a narrow window', 600, { window: 255 }],
    ['short documents', 600, { cuSeqlens: Int32Array.of(0, 200, 400, 600) }],
  ])('are left alone where they do not pay: %s', async (_, T, options) => {
    expect((await run('on', T, options)).calls).toBe(0);
  });

  test('the same call gives the same bits', async () => {
    const [one, two] = [await run('on', 301, {}), await run('on', 301, {})];
    expect(two.numbers).toEqual(one.numbers);
  });
});
