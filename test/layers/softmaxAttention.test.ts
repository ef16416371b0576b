import type * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { SoftmaxAttention, type SoftmaxAttentionOptions } from '../../src/layers/index.js';
import { attentionOracle } from '../oracle/flashAttention.js';
import { rotaryOracle } from '../oracle/primitives.js';
import { linearOracle } from '../oracle/product.js';
import { flat, inPieces } from '../support/layerGrads.js';
import { describeLayer } from '../support/layerProperties.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, randomTensors, values } from '../support/tensors.js';

const cases: Partial<SoftmaxAttentionOptions>[] = [
  {},
  { numKvHeads: 2, headDim: 6 },
  { ropeBase: null, numKvHeads: 1 },
  { window: 4 },
  { window: 2, ropeBase: 100 },
];
for (const options of cases)
  describeLayer({
    title: `SoftmaxAttention ${JSON.stringify(options)}`,
    make: (extra) => new SoftmaxAttention({ hiddenSize: 8, ...options, ...extra }),
    packedState: false,
  });

test('y equals projections, rotation and attention in float64, with shared heads and a window', () =>
  inScope(() => {
    const [T, D, H, G, K, base] = [9, 8, 4, 2, 6, 100];
    const options = { numHeads: H, numKvHeads: G, headDim: K, ropeBase: base, window: 4 };
    const layer = new SoftmaxAttention({ hiddenSize: D, ...options });
    const [x] = randomTensors(1, [1, T, D]);
    const project = (name: string, input: ArrayLike<number>, I: number, O: number) => {
      const weight = values(layer.weightsByName().get(`${name}_proj.weight`) as tf.Tensor);
      return linearOracle({ x: input, weight }, { N: T, I, O }, new Float64Array(T * O)).y;
    };
    const rotated = (p: Float64Array, heads: number) =>
      rotaryOracle(
        p,
        { H: heads, D: K, base },
        Array.from({ length: T }, (_, t) => t),
        new Float64Array(p.length),
      ).y;
    const q = rotated(project('q', values(x), D, H * K), H);
    const k = rotated(project('k', values(x), D, G * K), G);
    const v = project('v', values(x), D, G * K);
    const { o } = attentionOracle({ q, k, v }, { B: 1, T, S: T, H, G, K, V: K }, { window: 4 });
    expectClose('y', layer.forward(x).y, project('o', o, H * K, D), 1e-6);
    layer.dispose();
  }));

test('a window of one token keeps an empty cache and still its position', () =>
  inScope(() => {
    const layer = new SoftmaxAttention({ hiddenSize: 8, window: 1 });
    const [x] = randomTensors(2, [2, 5, 8]);
    const [got, want] = [inPieces(layer, [1, 3])(x, undefined), layer.forward(x)].map(flat);
    expectClose('y', got.y, want.y, 1e-6);
    expect(got['state.k'].shape).toEqual([2, 0, 4, 2]);
    expect(Array.from(values(got['state.position']))).toEqual([5]);
    layer.dispose();
  }));

test('packed documents take no state', () =>
  inScope(() => {
    const layer = new SoftmaxAttention({ hiddenSize: 8, name: 'a' });
    const [x] = randomTensors(3, [1, 5, 8]);
    const call = () => layer.forward(x, layer.initialState(1), { cuSeqlens: Int32Array.of(0, 2, 5) });
    expect(call).toThrow(
      'SoftmaxAttention "a": packed documents take no state, as their caches would differ in length',
    );
  }));

describe('errors name the layer, what was expected and what came', () => {
  test.each<[object, string]>([
    [{ numHeads: 3 }, 'numHeads must divide hiddenSize unless headDim is given, got 3 and 8'],
    [{ numKvHeads: 3 }, 'numKvHeads must divide numHeads, got 3 and 4'],
    [{ numKvHeads: 0 }, 'numKvHeads must be a positive integer, got 0'],
    [{ headDim: 3 }, 'headDim must be even for rotary positions, got 3; give an even headDim or ropeBase: null'],
    [{ ropeBase: 1 }, 'ropeBase must be greater than 1, got 1'],
    [{ window: 0 }, 'window must be a positive integer, got 0'],
  ])('%j', (options, message) => {
    expect(() => new SoftmaxAttention({ hiddenSize: 8, ...options })).toThrow(`SoftmaxAttention: ${message}`);
  });
});
