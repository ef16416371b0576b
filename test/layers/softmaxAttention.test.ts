import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { SoftmaxAttention, type SoftmaxAttentionOptions } from '../../src/layers/index.js';
import { attentionOracle } from '../oracle/flashAttention.js';
import { normOracle, rotaryOracle } from '../oracle/primitives.js';
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
  { qkNorm: true, numKvHeads: 2, normEps: 1e-3 },
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

test('qkNorm: heads of q and k are normed before the rotation, so that their length is no matter', () =>
  inScope(() => {
    const [x] = randomTensors(4, [1, 7, 8]);
    const make = (qkNorm: boolean) => new SoftmaxAttention({ hiddenSize: 8, ropeBase: 100, qkNorm, name: 'normed' });
    const [normed, plain] = [true, false].map(make);
    const outputs = [1, 3].map((scale) => {
      for (const name of ['q_proj.weight', 'k_proj.weight']) {
        const weight = plain.weightsByName().get(name) as tf.Tensor;
        normed
          .weightsByName()
          .get(name)
          ?.assign(tf.mul(weight, 100 * scale)); // far above the epsilon
      }
      return normed.forward(x).y;
    });
    expectClose('y', outputs[1], outputs[0], 1e-6);
    const unit = (name: string) => {
      const p = tf.reshape(
        tf.dot(tf.reshape(x, [7, 8]), tf.transpose(plain.weightsByName().get(name) as tf.Tensor)),
        [28, 2],
      );
      return normOracle({ x: values(p) }, { D: 2, eps: 0, meanFactor: 0.5 }, new Float64Array(56)).y;
    };
    const rotated = (name: string) => {
      const positions = Array.from({ length: 7 }, (_, t) => t);
      return rotaryOracle(unit(name), { H: 4, D: 2, base: 100 }, positions, new Float64Array(56)).y;
    };
    const v = values(
      tf.dot(tf.reshape(x, [7, 8]), tf.transpose(plain.weightsByName().get('v_proj.weight') as tf.Tensor)),
    );
    const [q, k] = [rotated('q_proj.weight'), rotated('k_proj.weight')];
    const { o } = attentionOracle({ q, k, v }, { B: 1, T: 7, S: 7, H: 4, G: 4, K: 2, V: 2 }, {});
    const weight = values(plain.weightsByName().get('o_proj.weight') as tf.Tensor);
    const { y } = linearOracle({ x: o, weight }, { N: 7, I: 8, O: 8 }, new Float64Array(56));
    expectClose('y', values(outputs[0]), y, 3e-6);
    for (const layer of [normed, plain]) layer.dispose();
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
    [{ normEps: 0 }, 'normEps must be positive, got 0'],
    [{ window: 0 }, 'window must be a positive integer, got 0'],
  ])('%j', (options, message) => {
    expect(() => new SoftmaxAttention({ hiddenSize: 8, ...options })).toThrow(`SoftmaxAttention: ${message}`);
  });
});
