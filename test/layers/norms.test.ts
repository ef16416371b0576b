import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { BatchNorm, LayerNorm } from '../../src/layers/index.js';
import { Rng } from '../../src/rng.js';
import { layerGrads } from '../support/layerGrads.js';
import { describeLayer, savedAndLoaded } from '../support/layerProperties.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, randomTensors, values } from '../support/tensors.js';

describeLayer({ title: 'LayerNorm', make: (extra) => new LayerNorm({ hiddenSize: 7, ...extra }) });
describeLayer({ title: 'LayerNorm, large eps', make: (extra) => new LayerNorm({ hiddenSize: 4, eps: 0.5, ...extra }) });

describe('BatchNorm', () => {
  const training = new Rng(1);

  test('in training every channel has mean 0 and variance 1 over batch and time', () =>
    inScope(() => {
      const layer = new BatchNorm({ hiddenSize: 5 });
      const [x] = randomTensors(1, [3, 40, 5]);
      const { y, state } = layer.forward(tf.add(tf.mul(x, 3), 2), undefined, { training });
      const { mean, variance } = tf.moments(y, [0, 1]);
      expectClose('mean', mean, Array(5).fill(0), 1e-6);
      expectClose('variance', variance, Array(5).fill(1), 1e-5);
      expect(state).toEqual({});
      layer.dispose();
    }));

  test('out of training it uses the running values, which start at 0 and 1', () =>
    inScope(() => {
      const layer = new BatchNorm({ hiddenSize: 5, eps: 0.5 });
      const [x, mean, logVar] = randomTensors(2, [2, 3, 5], [5], [5]);
      expectClose('y', layer.forward(x).y, tf.div(x, Math.sqrt(1.5)), 1e-6);
      layer.weightsByName().get('running_mean')?.assign(mean);
      layer.weightsByName().get('running_var')?.assign(tf.exp(logVar));
      const want = tf.div(tf.sub(x, mean), tf.sqrt(tf.add(tf.exp(logVar), 0.5)));
      expectClose('y', layer.forward(x).y, want, 1e-6);
      layer.dispose();
    }));

  test('running values move towards those of the batch by the rate of their specs', () =>
    inScope(() => {
      const layer = new BatchNorm({ hiddenSize: 5, momentum: 0.75 });
      const [noise] = randomTensors(3, [4, 50, 5]);
      const x = tf.add(tf.mul(noise, 2), [1, 2, 3, 4, 5]);
      const run = (all: tf.Tensor) => layer.forward(all, undefined, { training });
      const weights = [...layer.weightsByName()];
      for (let step = 0; step < 40; step++) {
        const { grads } = layerGrads(layer, x, { run });
        for (const [name, w] of weights) {
          const rate = layer.weightSpecs()[name].runningRate;
          if (rate) w.assign(tf.add(w, tf.mul(tf.sub(grads[name], w), rate)));
        }
      }
      const { mean, variance } = tf.moments(x, [0, 1]);
      expectClose('running_mean', layer.weightsByName().get('running_mean') as tf.Tensor, mean, 1e-4);
      expectClose('running_var', layer.weightsByName().get('running_var') as tf.Tensor, variance, 1e-4);
      expectClose('y', layer.forward(x).y, run(x).y, 1e-4);
      layer.dispose();
    }));

  test('a config makes the same layer again, and a saved model gives the same outputs', async () => {
    const layer = new BatchNorm({ hiddenSize: 4, momentum: 0.9, eps: 0.25 });
    expect(new BatchNorm(layer.getConfig() as never).options).toEqual(layer.options);
    const input = tf.input({ shape: [null, 4] });
    const model = tf.model({ inputs: input, outputs: layer.apply(input) as tf.SymbolicTensor });
    layer
      .weightsByName()
      .get('running_mean')
      ?.assign(tf.tensor1d([1, 2, 3, 4]));
    const loaded = await savedAndLoaded(model);
    const [x] = randomTensors(4, [2, 3, 4]);
    const [want, got] = [model, loaded].map((m) => Array.from(values(m.predict(x) as tf.Tensor)));
    expect(got).toEqual(want);
    model.dispose();
    loaded.dispose();
  });

  test('leaves no tensor behind', () => {
    const layer = new BatchNorm({ hiddenSize: 4 });
    const [x] = randomTensors(5, [2, 3, 4]);
    layer.weightsByName();
    const before = tf.memory().numTensors;
    for (const options of [{}, { training }]) {
      layer.forward(x, undefined, options).y.dispose();
      inScope(() => void layerGrads(layer, x, { run: (all) => layer.forward(all, undefined, options) }));
    }
    expect(tf.memory().numTensors).toBe(before);
    layer.dispose();
  });

  test('errors name the layer, what was expected and what came', () => {
    expect(() => new BatchNorm({ hiddenSize: 4, momentum: 1.5 })).toThrow('momentum must be from 0 to 1, got 1.5');
    expect(() => new BatchNorm({ hiddenSize: 4, eps: 0 })).toThrow('BatchNorm: eps must be positive, got 0');
    expect(() => new LayerNorm({ hiddenSize: 4, eps: 0 })).toThrow('LayerNorm: eps must be positive, got 0');
  });
});
