import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { alibiSlopes, t5Bucket } from '../../src/bias/index.js';
import { FlashBiasAttention, type FlashBiasAttentionOptions } from '../../src/layers/index.js';
import { attentionOracle } from '../oracle/flashAttention.js';
import { linearOracle } from '../oracle/product.js';
import { describeLayer } from '../support/layerProperties.js';
import { inScope, spliceTime } from '../support/opProperties.js';
import { expectClose, randomTensors, values } from '../support/tensors.js';

const cases: Partial<FlashBiasAttentionOptions>[] = [
  {},
  { slopes: 'learned', numKvHeads: 2, qkNorm: true },
  { slopes: 'published', numHeads: 3, headDim: 2, window: 4 },
  { bias: 't5', numBuckets: 6, maxDistance: 9, numKvHeads: 1 },
  { bias: 't5', numBuckets: 4, maxDistance: 4, window: 6 },
  { bias: 'learned', rank: 3, maxLength: 24, numKvHeads: 2 },
  { bias: 'learned', rank: 2, maxLength: 24, window: 3 },
];
for (const options of cases)
  describeLayer({
    title: `FlashBiasAttention ${JSON.stringify(options)}`,
    make: (extra) => new FlashBiasAttention({ hiddenSize: 8, ...options, ...extra }),
    packedState: false,
  });

/** y in float64 with the bias b(h, i, j) of positions i and j. */
function expectDefinition(
  layer: FlashBiasAttention,
  x: tf.Tensor,
  causal: boolean,
  b: (h: number, i: number, j: number) => number,
): void {
  const [, T, D] = x.shape as [number, number, number];
  const H = layer.options.numHeads;
  const project = (name: string, input: ArrayLike<number>) => {
    const weight = values(layer.weightsByName().get(`${name}_proj.weight`) as tf.Tensor);
    return linearOracle({ x: input, weight }, { N: T, I: D, O: D }, new Float64Array(T * D)).y;
  };
  const [q, k, v] = ['q', 'k', 'v'].map((name) => project(name, values(x)));
  const bias = Float64Array.from({ length: H * T * T }, (_, n) =>
    b(Math.floor(n / (T * T)), Math.floor(n / T) % T, n % T),
  );
  const dims = { B: 1, T, S: T, H, G: H, K: D / H, V: D / H };
  const { o } = attentionOracle({ q, k, v, bias }, dims, { causal });
  expectClose('y', layer.forward(x).y, project('o', o), 2e-6);
  layer.dispose();
}

describe('y equals projections and attention with the dense bias in float64', () => {
  const [D, T, numHeads] = [8, 11, 2];
  const make = (options: Partial<FlashBiasAttentionOptions>) =>
    new FlashBiasAttention({ hiddenSize: D, numHeads, ...options });
  const draw = () => randomTensors(3, [1, T, D])[0];

  test.each(['formula', 'learned'] as const)('ALiBi, slopes: %s', (slopes) =>
    inScope(() => {
      const m = alibiSlopes(numHeads);
      expectDefinition(make({ slopes }), draw(), true, (h, i, j) => m[h] * (j - i));
    }),
  );

  test('T5', () =>
    inScope(() => {
      const layer = make({ bias: 't5', numBuckets: 6, maxDistance: 8 });
      const [table] = randomTensors(4, [6, numHeads]);
      layer.weightsByName().get('relative_bias')?.assign(table);
      const options = { numBuckets: 6, maxDistance: 8, bidirectional: false };
      expectDefinition(layer, draw(), true, (h, i, j) => values(table)[t5Bucket(j - i, options) * numHeads + h]);
    }));

  test.each([false, true])('learned factors, bidirectional: %s', (bidirectional) =>
    inScope(() => {
      const layer = make({ bias: 'learned', rank: 3, maxLength: 16, bidirectional });
      const [phiQ, phiK] = ['phi_q', 'phi_k'].map((name, n) => {
        const [factor] = randomTensors(5 + n, [16, numHeads, 3]);
        layer.weightsByName().get(name)?.assign(factor);
        return values(factor);
      });
      const at = (h: number, i: number) => (i * numHeads + h) * 3;
      expectDefinition(layer, draw(), !bidirectional, (h, i, j) =>
        [0, 1, 2].reduce((sum, r) => sum + phiQ[at(h, i) + r] * phiK[at(h, j) + r], 0),
      );
    }),
  );
});

test('bidirectional: the first token sees the last, there is no state, and packed documents stay apart', () =>
  inScope(() => {
    const layer = new FlashBiasAttention({
      hiddenSize: 8,
      bias: 'learned',
      maxLength: 9,
      bidirectional: true,
      name: 'b',
    });
    const [x, other] = randomTensors(6, [1, 9, 8], [1, 9, 8]);
    const first = (y: tf.Tensor, t: number) => Array.from(values(tf.slice(y, [0, 0, 0], [1, t, 8])));
    const { y, state } = layer.forward(x);
    expect(state).toEqual({});
    expect(layer.stateSize(2, 100)).toBe(0);
    const changed = spliceTime(x, other, 8);
    expect(first(layer.forward(changed).y, 1)).not.toEqual(first(y, 1));
    const cuSeqlens = Int32Array.of(0, 5, 9);
    const [a, b] = [x, changed].map((input) => first(layer.forward(input, undefined, { cuSeqlens }).y, 5));
    expect(a).toEqual(b);
    const alone = layer.forward(tf.slice(x, [0, 5, 0], [1, 4, 8])).y;
    const packed = tf.slice(layer.forward(x, undefined, { cuSeqlens }).y, [0, 5, 0], [1, 4, 8]);
    expectClose('y', packed, alone, 1e-6);
    expect(() => layer.forward(x, { k: x })).toThrow(
      'FlashBiasAttention "b": a bidirectional layer reads the whole sequence at once',
    );
    layer.dispose();
  }));

test('learned factors end where they were told to, also while decoding and in packed documents', () =>
  inScope(() => {
    const layer = new FlashBiasAttention({ hiddenSize: 8, bias: 'learned', maxLength: 4, name: 'a' });
    const [x] = randomTensors(7, [1, 5, 8]);
    const message = (n: number) =>
      `FlashBiasAttention "a": has factors for 4 positions (maxLength), got a sequence of ${n}; learned factors do not reach further`;
    expect(() => layer.forward(x)).toThrow(message(5));
    const { state } = layer.forward(tf.slice(x, [0, 0, 0], [1, 4, 8]));
    expect(() => layer.forward(tf.slice(x, [0, 4, 0], [1, 1, 8]), state)).toThrow(message(5));
    expect(layer.forward(x, undefined, { cuSeqlens: Int32Array.of(0, 3, 5) }).y.shape).toEqual([1, 5, 8]);
    layer.dispose();
  }));

describe('errors name the layer, what was expected and what came', () => {
  test.each<[object, string]>([
    [{ numHeads: 3 }, 'numHeads must divide hiddenSize unless headDim is given, got 3 and 8'],
    [{ bias: 'rope' }, "bias must be one of 'alibi', 't5', 'learned', got 'rope'"],
    [{ slopes: 'steep' }, "slopes must be one of 'formula', 'published', 'learned', got 'steep'"],
    [{ rank: 0 }, 'rank must be a positive integer, got 0'],
    [{ numBuckets: 1 }, 'numBuckets must be at least 2, got 1'],
    [{ maxDistance: 16 }, 'maxDistance must be above numBuckets / 2, got 16 and 32'],
    [{ bidirectional: true }, "bidirectional needs bias: 'learned', got 'alibi', which is for the past alone"],
    [{ bidirectional: true, bias: 'learned', window: 3 }, 'a bidirectional layer has no window, got 3'],
  ])('%j', (options, message) => {
    expect(() => new FlashBiasAttention({ hiddenSize: 8, ...(options as object) })).toThrow(
      `FlashBiasAttention: ${message}`,
    );
  });
});
