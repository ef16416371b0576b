/** What the base class does for all layers: checks at the door, start values, states, types. */
import * as tf from '@tensorflow/tfjs';
import { describe, expect, expectTypeOf, test } from 'vitest';
import {
  GatedLinearAttention,
  type GatedLinearAttentionOptions,
  type LayerOutput,
  type LayerState,
  RMSNorm,
  type SeqLayer,
  SoftmaxAttention,
  SwiGLU,
  TokenEmbedding,
} from '../../src/layers/index.js';
import { savedAndLoaded } from '../support/layerProperties.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, randomTensors, values } from '../support/tensors.js';

const gla = (extra: object = {}) =>
  new GatedLinearAttention({ hiddenSize: 8, numHeads: 2, useShortConv: true, name: 'mix', ...extra });

describe('errors name the layer, what was expected and what came', () => {
  test('input', () =>
    inScope(() => {
      const label = 'GatedLinearAttention "mix"';
      expect(() => gla().forward(tf.zeros([1, 2, 7]))).toThrow(`${label}: input must have shape [B,T,8], got [1,2,7]`);
      expect(() => gla().forward(tf.zeros([2, 8]))).toThrow(`${label}: input must have shape [B,T,8], got [2,8]`);
      expect(() => gla().forward(tf.zeros([1, 0, 8]))).toThrow(`${label}: input must hold a token, got [1,0,8]`);
      expect(() => gla().apply(tf.input({ shape: [3, 9] }))).toThrow(`must have shape [B,T,8], got [*,3,9]`);
    }));

  test('state', () =>
    inScope(() => {
      const layer = gla();
      const x = tf.zeros([2, 3, 8]);
      const { recurrent, ...rest } = layer.initialState(2);
      const call = (state: LayerState) => () => layer.forward(x, state);
      expect(call(rest)).toThrow(
        'GatedLinearAttention "mix": its state must hold convK, convQ, convV, recurrent, got convK, convQ, convV',
      );
      expect(call({ recurrent: tf.zeros([2, 2, 2, 3]), ...rest })).toThrow(
        'GatedLinearAttention "mix": state.recurrent must have shape [2,2,2,4], got [2,2,2,3]',
      );
      expect(call(layer.initialState(1))).toThrow('state.recurrent must have shape [2,2,2,4], got [1,2,2,4]');
      expect(call({ ...rest, recurrent: tf.cast(recurrent, 'int32') })).toThrow(
        'GatedLinearAttention "mix": state.recurrent must be float32, got int32',
      );
      expect(() => new SwiGLU({ hiddenSize: 8, name: 'mlp' }).forward(x, { recurrent })).toThrow(
        'SwiGLU "mlp": its state must hold nothing, got recurrent',
      );
    }));

  test('state of a cache', () =>
    inScope(() => {
      const layer = new SoftmaxAttention({ hiddenSize: 8, window: 3, name: 'att' });
      const [x] = randomTensors(1, [1, 5, 8]);
      const { k, v, position } = layer.forward(x).state;
      const call = (state: LayerState) => () => layer.forward(x, state);
      expect(call({ k, v: tf.slice(v, [0, 1]), position })).toThrow(
        'SoftmaxAttention "att": state.v must have shape [1,2,4,2], got [1,1,4,2]',
      );
      expect(call({ k, v, position: tf.cast(position, 'float32') })).toThrow(
        'state.position must be int32, got float32',
      );
    }));

  test('packed documents', () =>
    inScope(() => {
      const call = (cuSeqlens: Int32Array) => () => gla().forward(tf.zeros([1, 4, 8]), undefined, { cuSeqlens });
      expect(call(Int32Array.of(0, 3))).toThrow('"mix": cuSeqlens must rise strictly from 0 to 4, got [0,3]');
      const states = () =>
        gla().forward(tf.zeros([1, 4, 8]), gla().initialState(1), { cuSeqlens: Int32Array.of(0, 1, 4) });
      expect(states).toThrow('state.recurrent must have shape [2,2,2,4], got [1,2,2,4]');
    }));

  test('start values after the first use', () =>
    inScope(() => {
      const layer = gla();
      layer.weightsByName();
      expect(() => layer.buildWith(() => new Float32Array(1))).toThrow(
        'GatedLinearAttention "mix": is already built; give start values before its first use',
      );
      layer.dispose();
    }));
});

describe('start values', () => {
  const first = (layer: SeqLayer) => values([...layer.weightsByName().values()][0] as tf.Tensor)[0];

  test('follow the seed and the name', () =>
    inScope(() => {
      expect(first(gla())).toBe(first(gla()));
      expect(first(gla())).not.toBe(first(gla({ name: 'other' })));
      expect(first(gla())).not.toBe(first(gla({ seed: 1 })));
    }));

  test('are uniform within 1/sqrt(fanIn), 1 for norms', () =>
    inScope(() => {
      const weights = new GatedLinearAttention({ hiddenSize: 64 }).weightsByName();
      const projection = Array.from(values(weights.get('q_proj.weight') as tf.Tensor));
      const largest = Math.max(...projection.map(Math.abs));
      expect(largest).toBeLessThanOrEqual(64 ** -0.5);
      expect(largest).toBeGreaterThan(0.98 * 64 ** -0.5);
      expect(new Set(values(weights.get('g_norm_swish_gate.weight') as tf.Tensor) as Float32Array)).toEqual(
        new Set([1]),
      );
    }));
});

test('a language model of these layers in a tf.model learns a cycle of tokens, and goes on learning when loaded', async () => {
  const ids = tf.tensor2d(
    Array.from({ length: 4 * 6 }, (_, i) => (i + Math.floor(i / 6)) % 5),
    [4, 6],
    'int32',
  );
  const targets = Array.from(values(ids), (id) => (id + 1) % 5);
  const next = tf.oneHot(tf.tensor2d(targets, [4, 6], 'int32'), 5);
  const input = tf.input({ shape: [null], dtype: 'int32' });
  const embedding = new TokenEmbedding({ hiddenSize: 8, vocabSize: 5, name: 'embed' });
  const mixers = [
    gla(),
    new SoftmaxAttention({ hiddenSize: 8, name: 'att' }),
    new SwiGLU({ hiddenSize: 8, name: 'mlp' }),
  ];
  const residual = (x: tf.SymbolicTensor, mixer: SeqLayer) => {
    const normed = new RMSNorm({ hiddenSize: 8, name: `${mixer.name}_norm` }).apply(x);
    return tf.layers.add().apply([x, mixer.apply(normed) as tf.SymbolicTensor]) as tf.SymbolicTensor;
  };
  const last = mixers.reduce(residual, embedding.apply(input) as tf.SymbolicTensor);
  const kernelInitializer = tf.initializers.glorotUniform({ seed: 1 });
  const head = tf.layers.dense({ units: 5, activation: 'softmax', kernelInitializer });
  const model = tf.model({ inputs: input, outputs: head.apply(last) as tf.SymbolicTensor });
  const train = async (m: tf.LayersModel, epochs: number) => {
    m.compile({ optimizer: tf.train.adam(0.02), loss: 'categoricalCrossentropy' });
    const { history } = await m.fit(ids, next, { epochs, batchSize: 4, shuffle: false, verbose: 0 });
    return history.loss as number[];
  };
  const losses = await train(model, 8);
  expect(losses[7]).toBeLessThan(0.5 * losses[0]);
  const more = await train(await savedAndLoaded(model), 4);
  expect(more[0]).toBeLessThan(losses[7]); // each loss is that before its step
  expect(more[3]).toBeLessThan(more[0]);
});

test('frozen layers keep their weights in fit', async () => {
  const frozen = gla({ trainable: false, inputShape: [3, 8] });
  const model = tf.sequential({ layers: [frozen, tf.layers.dense({ units: 2 })] });
  const before = Array.from(frozen.weightsByName().values(), (w) => Array.from(values(w)));
  model.compile({ optimizer: 'sgd', loss: 'meanSquaredError' });
  const [x, y] = randomTensors(4, [2, 3, 8], [2, 3, 2]);
  await model.fit(x, y, { epochs: 2, verbose: 0 });
  expect(Array.from(frozen.weightsByName().values(), (w) => Array.from(values(w)))).toEqual(before);
});

test('a session is its state: copied through plain arrays, it goes on as before', () =>
  inScope(() => {
    const layer = gla();
    const [x, more] = randomTensors(5, [1, 4, 8], [1, 2, 8]);
    const { state } = layer.forward(x);
    const copy = Object.fromEntries(Object.entries(state).map(([name, t]) => [name, tf.tensor(t.arraySync())]));
    expectClose('y', layer.forward(more, copy).y, layer.forward(more, state).y, 0);
    layer.dispose();
  }));

test('types: options, states and outputs are named, nothing is any', () => {
  const layer = gla();
  expectTypeOf(layer).toExtend<tf.layers.Layer>();
  expectTypeOf(layer).toExtend<SeqLayer>();
  expectTypeOf(layer.options).toEqualTypeOf<Readonly<GatedLinearAttentionOptions>>();
  expectTypeOf(layer.options.featureMap).toEqualTypeOf<'relu' | null>();
  expectTypeOf(layer.forward).returns.toEqualTypeOf<LayerOutput>();
  expectTypeOf(layer.forward).parameter(1).toEqualTypeOf<Record<string, tf.Tensor> | undefined>();
  expectTypeOf(layer.stateSize(1)).toEqualTypeOf<number>();
  expectTypeOf(layer.call).returns.toEqualTypeOf<tf.Tensor>();
  expectTypeOf(layer.weightsByName()).toEqualTypeOf<Map<string, tf.Variable>>();
  expectTypeOf<ConstructorParameters<typeof GatedLinearAttention>[0]>().not.toBeAny();
  // @ts-expect-error hiddenSize has no default
  expect(() => new GatedLinearAttention({ numHeads: 2 })).toThrow(RangeError);
  // @ts-expect-error a typo
  expect(() => new GatedLinearAttention({ hiddenSize: 8, numHead: 2 })).toThrow(RangeError);
  // @ts-expect-error not an activation
  expect(() => new GatedLinearAttention({ hiddenSize: 8, gateFn: 'relu' })).toThrow(RangeError);
});
