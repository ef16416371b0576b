/** DeltaNet, GatedDeltaNet and KimiDeltaAttention: the properties of layers, how they start, what options they refuse. */
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import {
  DeltaNet,
  type DeltaNetOptions,
  GatedDeltaNet,
  type GatedDeltaNetOptions,
  KimiDeltaAttention,
  type SeqLayer,
} from '../../src/layers/index.js';
import { describeLayer } from '../support/layerProperties.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, normal, values } from '../support/tensors.js';

const heads = { hiddenSize: 16, numHeads: 2, headDim: 8, expandV: 1 };

const deltaNets: Partial<DeltaNetOptions>[] = [
  {},
  { useOutputGate: true, expandK: 0.5, allowNegEigval: true, convBias: true, convSize: 3 },
  { useShortConv: false, form: 'recurrent' },
];
for (const options of deltaNets)
  describeLayer({
    title: `DeltaNet ${JSON.stringify(options)}`,
    make: (extra) => new DeltaNet({ hiddenSize: 16, numHeads: 2, ...options, ...extra }),
  });

const gatedDeltaNets: Partial<GatedDeltaNetOptions>[] = [
  { expandV: 2 },
  { numVHeads: 4, useOutputGate: false, allowNegEigval: true, form: 'chunk', chunkSize: 4 },
];
for (const options of gatedDeltaNets)
  describeLayer({
    title: `GatedDeltaNet ${JSON.stringify(options)}`,
    make: (extra) => new GatedDeltaNet({ ...heads, ...options, ...extra }),
  });

/** A layer's output with some weights replaced. */
function outputWith(layer: SeqLayer, x: tf.Tensor, weights: Record<string, tf.Tensor | number> = {}): tf.Tensor {
  for (const [name, value] of Object.entries(weights)) {
    const variable = layer.weightsByName().get(name) as tf.Variable;
    variable.assign(typeof value === 'number' ? tf.fill(variable.shape, value) : value);
  }
  return layer.forward(x).y;
}

describe('the layers are of one family', () => {
  const x = () => tf.tensor(normal(3, 2 * 9 * 8), [2, 9, 8]);

  test('GatedDeltaNet that forgets nothing is DeltaNet', () =>
    inScope(() => {
      const shared = { hiddenSize: 8, numHeads: 2, useOutputGate: true };
      const plain = new DeltaNet({ ...shared, name: 'plain' });
      const gated = new GatedDeltaNet({ ...shared, headDim: 4, expandV: 1, name: 'gated' });
      const weights = Object.fromEntries(plain.weightsByName());
      const y = outputWith(gated, x(), { ...weights, A_log: -40 }); // a rate of exp(-40): decays of 1
      expectClose('y', y, plain.forward(x()).y, 1e-6);
      const forgetful = outputWith(gated, x(), { A_log: 0, dt_bias: 1 });
      expect(Math.max(...Array.from(values(tf.abs(tf.sub(forgetful, y)))))).toBeGreaterThan(1e-2);
      for (const layer of [plain, gated]) layer.dispose();
    }));

  test('KimiDeltaAttention with one rate per head is GatedDeltaNet, but for the activation of the gate', () =>
    inScope(() => {
      const shared = { hiddenSize: 8, numHeads: 2, headDim: 4, expandV: 1 };
      const gated = new GatedDeltaNet({ ...shared, useOutputGate: false, name: 'gated' });
      const kda = new KimiDeltaAttention({ ...shared, name: 'kda' });
      const mine = Object.fromEntries(gated.weightsByName());
      const { a_proj: _, 'a_proj.weight': a, dt_bias, ...weights } = mine;
      // f_proj.1 spreads the head's number over its channels; a gate of sigmoid(0) halves the output
      const spread = tf.tensor(
        Array.from({ length: 8 * 4 }, (_, i) => +(Math.floor(i / 16) === i % 4)),
        [8, 4],
      );
      const y = outputWith(kda, x(), {
        ...weights,
        dt_bias: tf.tensor([0, 1].flatMap((h) => Array(4).fill(values(dt_bias)[h]))),
        'f_proj.0.weight': tf.pad(a, [
          [0, 2],
          [0, 0],
        ]),
        'f_proj.1.weight': spread,
        'g_proj.1.weight': 0,
        'g_proj.1.bias': 0,
      });
      expectClose('y', tf.mul(y, 2), gated.forward(x()).y, 1e-6);
      for (const layer of [gated, kda]) layer.dispose();
    }));

  test('allowNegEigval doubles the write strength', () =>
    inScope(() => {
      // beta of 2 at one key reflects its value: after two writes of v = 0 the state is back; with 1 it is gone
      for (const [allowNegEigval, want] of [
        [true, 1],
        [false, 0],
      ] as const) {
        const layer = new DeltaNet({ hiddenSize: 2, numHeads: 1, allowNegEigval, useShortConv: false, name: 'one' });
        const start = tf.tensor([1, 0, 0, 0], [1, 1, 2, 2]);
        layer
          .weightsByName()
          .get('v_proj.weight')
          ?.assign(tf.zeros([2, 2]));
        layer
          .weightsByName()
          .get('k_proj.weight')
          ?.assign(tf.tensor([50, 0, 0, 0], [2, 2]));
        layer
          .weightsByName()
          .get('b_proj.weight')
          ?.assign(tf.tensor([40, 0], [1, 2]));
        const { state } = layer.forward(tf.tensor([1, 0, 1, 0], [1, 2, 2]), { recurrent: start });
        expect(values(state.recurrent)[0]).toBeCloseTo(want, 6);
        layer.dispose();
      }
    }));
});

describe('the start', () => {
  const many = { hiddenSize: 8, numHeads: 200, headDim: 2, expandV: 1, name: 'start' };
  const startOf = (layer: SeqLayer, name: string) => Array.from(values(layer.weightsByName().get(name) as tf.Tensor));
  const softplus = (x: number) => Math.log1p(Math.exp(x));

  test('GatedDeltaNet: rates uniform up to 16, steps uniform in the logarithm from 0.001 to 0.1', () =>
    inScope(() => {
      const layer = new GatedDeltaNet(many);
      const rates = startOf(layer, 'A_log').map(Math.exp);
      const steps = startOf(layer, 'dt_bias').map(softplus);
      expect(Math.min(...rates)).toBeGreaterThan(0);
      expect(Math.min(...rates)).toBeLessThan(0.8);
      expect(Math.max(...rates)).toBeLessThanOrEqual(16.0001);
      expect(Math.max(...rates)).toBeGreaterThan(15);
      expect(Math.min(...steps)).toBeGreaterThan(0.00099);
      expect(Math.max(...steps)).toBeLessThan(0.1001);
      const below = steps.filter((step) => step < 0.01).length / steps.length;
      expect(Math.abs(below - 0.5)).toBeLessThan(0.12);
      expect(layer.weightSpecs().A_log.kind).toBe('other'); // no weight decay
      expect(layer.weightSpecs().dt_bias.kind).toBe('other');
      layer.dispose();
    }));

  test('lowerBound: no decay below it', () =>
    inScope(() => {
      const layer = new KimiDeltaAttention({ ...heads, lowerBound: -2, name: 'safe' });
      layer
        .weightsByName()
        .get('dt_bias')
        ?.assign(tf.fill([16], 1e3));
      layer
        .weightsByName()
        .get('k_proj.weight')
        ?.assign(tf.zeros([16, 16]));
      const recurrent = tf.ones([1, 2, 8, 8]);
      const conv = layer.initialState(1);
      const { state } = layer.forward(tf.ones([1, 1, 16]), { ...conv, recurrent });
      for (const kept of Array.from(values(state.recurrent))) expect(kept).toBeCloseTo(Math.exp(-2), 6);
      layer.dispose();
    }));
});

describe('errors name the layer, what was expected and what came', () => {
  const layers = { DeltaNet, GatedDeltaNet };
  test.each<[keyof typeof layers, object, string]>([
    ['DeltaNet', { numHeads: 3 }, 'numHeads must divide trunc(hiddenSize * expandK), got 3 and 8'],
    ['DeltaNet', { expandV: 0.7 }, 'numHeads must divide trunc(hiddenSize * expandV), got 4 and 5'],
    ['DeltaNet', { convSize: 0 }, 'convSize must be a positive integer, got 0'],
    ['DeltaNet', { headDim: 4 }, 'unknown option "headDim"; the options are hiddenSize, numHeads, expandK,'],
    ['DeltaNet', { form: 'parallel' }, "form must be one of 'auto', 'chunk', 'recurrent', got 'parallel'"],
    ['GatedDeltaNet', { headDim: 0 }, 'headDim must be a positive integer, got 0'],
    ['GatedDeltaNet', { numVHeads: 9 }, 'numVHeads must be a multiple of numHeads, got 9 and 6'],
    ['GatedDeltaNet', { chunkSize: 1.5 }, 'chunkSize must be a positive integer, got 1.5'],
    ['GatedDeltaNet', { headDim: 3, expandV: 0.5 }, 'headDim * expandV must be a positive integer, got 3 * 0.5'],
  ])('%s %j', (name, options, message) => {
    const make = () => new layers[name]({ hiddenSize: 8, ...options });
    expect(make).toThrow(`${name}: ${message}`);
    expect(make).toThrow(RangeError);
  });
});
