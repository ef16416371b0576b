import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import { ScatterbrainAttention, type ScatterbrainAttentionOptions, SoftmaxAttention } from '../../src/layers/index.js';
import { rotaryOracle } from '../oracle/primitives.js';
import { linearOracle } from '../oracle/product.js';
import { inWindow, scatterbrainOracle } from '../oracle/scatterbrain.js';
import { describeLayer, savedAndLoaded } from '../support/layerProperties.js';
import { anyDocuments, inScope, timeSlice } from '../support/opProperties.js';
import { expectClose, normal, randomTensors, values } from '../support/tensors.js';

type Options = Partial<ScatterbrainAttentionOptions>;
const make = (options: Options & { name?: string } = {}) =>
  new ScatterbrainAttention({ hiddenSize: 8, nbFeatures: 8, ...options });

const cases: Options[] = [
  { windowSize: 3 },
  { windowSize: 3, hash: { type: 'rotation', bucketSize: 2, numBuckets: 4, rounds: 2 }, softmaxTemp: 0.2, numHeads: 2 },
  { windowSize: 2, mode: 'sparse-only', hash: { type: 'rotation', bucketSize: 3, numBuckets: 2 } },
  { mode: 'low-rank-only', ropeBase: null, headDim: 3, nbFeatures: null },
];
for (const options of cases)
  describeLayer({
    title: `ScatterbrainAttention ${JSON.stringify(options)}`,
    make: (extra) => make({ ...options, ...extra }),
    ...{ packedState: false, wholeState: true, kinks: options.hash !== undefined }, // a bucket is left at once
  });

const project = (layer: ScatterbrainAttention, name: string, x: ArrayLike<number>, [N, I, O]: number[]) => {
  const weight = values(layer.weightsByName().get(`${name}.weight`) as tf.Tensor);
  return linearOracle({ x, weight }, { N, I, O }, new Float64Array(N * O)).y;
};

test.each([false, true])(
  'y equals projections, rotation and the definition in float64; bidirectional %s',
  (bidirectional) =>
    inScope(() => {
      const [T, D, H, E, base, windowSize] = [11, 8, 2, 6, 100, 4];
      const layer = make({ numHeads: H, headDim: E, ropeBase: base, windowSize, bidirectional });
      const [x] = randomTensors(1, [1, T, D]);
      const positions = Array.from({ length: T }, (_, t) => t);
      const rotated = (name: string) =>
        rotaryOracle(
          project(layer, name, values(x), [T, D, H * E]),
          { H, D: E, base },
          positions,
          new Float64Array(T * H * E),
        ).y;
      const v = project(layer, 'v_proj', values(x), [T, D, H * E]);
      const projection = values(layer.weightsByName().get('feature_map.projection_matrix') as tf.Tensor);
      const { o } = scatterbrainOracle(
        { q: rotated('q_proj'), k: rotated('k_proj'), v, projection },
        { B: 1, T, S: T, H, E, V: E, r: 4 },
        { support: (_, __, i, j) => inWindow(i, j, windowSize, !bidirectional), causal: !bidirectional },
      );
      expectClose('y', layer.forward(x).y, project(layer, 'o_proj', o, [T, H * E, D]), 2e-6);
      layer.dispose();
    }),
);

test('with a window over all tokens it is SoftmaxAttention', () =>
  inScope(() => {
    const [ours, softmax] = [make({ windowSize: 20, name: 'a' }), new SoftmaxAttention({ hiddenSize: 8, name: 'a' })];
    const [x] = randomTensors(2, [2, 20, 8]);
    for (const [name, weight] of softmax.weightsByName()) ours.weightsByName().get(name)?.assign(weight);
    expectClose('y', ours.forward(x).y, softmax.forward(x).y, 1e-5);
    for (const layer of [ours, softmax]) layer.dispose();
  }));

describe('both directions', () => {
  const both = (options: Options = {}) =>
    make({
      bidirectional: true,
      windowSize: 3,
      hash: { type: 'sorted', bucketSize: 4, rounds: 2 },
      name: 'both',
      ...options,
    });

  test('packed documents equal each alone, and there is no state', () =>
    fc.assert(
      fc.property(anyDocuments(), fc.nat(1e6), (cuSeqlens, seed) =>
        inScope(() => {
          const layer = both();
          const N = cuSeqlens.length - 1;
          const x = tf.tensor(normal(seed, cuSeqlens[N] * 8), [1, cuSeqlens[N], 8]);
          const alone = Array.from(
            { length: N },
            (_, n) => layer.forward(timeSlice(x, cuSeqlens[n], cuSeqlens[n + 1])).y,
          );
          const { y, state } = layer.forward(x, undefined, { cuSeqlens });
          expectClose('y', y, tf.concat(alone, 1), 1e-5);
          expect([state, layer.stateSize(4)]).toEqual([{}, 0]);
          layer.dispose();
        }),
      ),
      { numRuns: 10 },
    ));

  test('takes no state, and says so', () =>
    inScope(() => {
      const [x] = randomTensors(2, [1, 3, 8]);
      const call = () => both().forward(x, { position: tf.zeros([1], 'int32') });
      expect(call).toThrow('ScatterbrainAttention "both": a bidirectional layer reads the whole sequence at once');
    }));

  test('survives a saved model, with what its hash projects on', async () => {
    const layer = both();
    const input = tf.input({ shape: [null, 8] });
    const model = tf.model({ inputs: input, outputs: layer.apply(input) as tf.SymbolicTensor });
    const loaded = await savedAndLoaded(model);
    inScope(() => {
      const [x] = randomTensors(3, [2, 9, 8]);
      const [want, got] = [model, loaded].map((m) => Array.from(values(m.predict(x) as tf.Tensor)));
      expect(got).toEqual(want);
    });
    model.dispose();
    loaded.dispose();
  });
});

test('projection and hash are constants: drawn from the seed, stored, not trained', async () => {
  await useBackend('wasm');
  const options: Options = { windowSize: 3, hash: { type: 'rotation', bucketSize: 2, numBuckets: 4 } };
  const constants = ['feature_map.projection_matrix', 'hash.vectors'];
  const [a, b, other] = [0, 0, 1].map((seed) => make({ ...options, seed, name: 'x' }));
  const numbers = (layer: ScatterbrainAttention) =>
    constants.map((name) => Array.from(values(layer.weightsByName().get(name) as tf.Tensor)));
  expect(numbers(a)).toEqual(numbers(b));
  expect(numbers(a)).not.toEqual(numbers(other));
  expect(a.trainableWeights).toHaveLength(4);
  expect(a.nonTrainableWeights).toHaveLength(2);
  for (const layer of [a, b, other]) layer.dispose();
});

test('packed documents take no state', () =>
  inScope(() => {
    const layer = make({ name: 'a' });
    const [x] = randomTensors(3, [1, 5, 8]);
    const call = () => layer.forward(x, layer.initialState(1), { cuSeqlens: Int32Array.of(0, 2, 5) });
    expect(call).toThrow('ScatterbrainAttention "a": packed documents take no state');
  }));

test.each<[Options, string]>([
  [{ numHeads: 3 }, 'numHeads must divide hiddenSize unless headDim is given, got 3 and 8'],
  [{ nbFeatures: 5 }, 'nbFeatures must be even, got 5'],
  [{ windowSize: 0 }, 'windowSize must be a positive integer, got 0'],
  [{ headDim: 3 }, 'headDim must be even for rotary positions, got 3; give an even headDim or ropeBase: null'],
  [{ ropeBase: 1 }, 'ropeBase must be greater than 1, got 1'],
  [{ softmaxTemp: 0 }, 'softmaxTemp must be positive, got 0'],
  [
    { hash: { type: 'sorted', bucketSize: 2 } },
    "hash 'sorted' places a token by all others, so it needs bidirectional: true",
  ],
  [{ hash: { type: 'rotation', bucketSize: 2, numBuckets: 3 } }, 'hash.numBuckets must be even, got 3'],
  [{ mode: 'sparse-only', windowSize: null }, "mode 'sparse-only' needs windowSize or hash"],
])('%j', (options, message) => {
  expect(() => make(options)).toThrow(`ScatterbrainAttention: ${message}`);
});
