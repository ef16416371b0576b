import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { rmsNorm } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { BitGLU, MLGRU, type SeqLayer, ShortConvolution } from '../../src/layers/index.js';
import { lowerBoundOf } from '../../src/layers/mlgru.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { describeLayer } from '../support/layerProperties.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const kinks = true; // rounding
describeLayer({ title: 'MLGRU', make: (extra) => new MLGRU({ hiddenSize: 6, ...extra }), kinks });
describeLayer({
  title: 'MLGRU with a lower bound, twice as wide',
  make: (extra) => new MLGRU({ hiddenSize: 6, expandRatio: 2, layerIndex: 1, numLayers: 3, ...extra }),
  kinks,
});
for (const shareConvKernel of [true, false])
  describeLayer({
    title: `MLGRU with `,
    make: (extra) =>
      new MLGRU({
        hiddenSize: 6,
        expandRatio: 2,
        useShortConv: true,
        convSize: 3,
        convBias: true,
        shareConvKernel,
        ...extra,
      }),
    kinks,
  });
describeLayer({ title: 'MLGRU, dense', make: (extra) => new MLGRU({ hiddenSize: 6, linear: 'dense', ...extra }) });
describeLayer({
  title: 'BitGLU',
  make: (extra) => new BitGLU({ hiddenSize: 6, intermediateSize: 10, ...extra }),
  kinks,
});

test('dense: the recurrence of the layer by plain products, and no norm but that of the gate', () =>
  inScope(() => {
    const layer = new MLGRU({ hiddenSize: 4, linear: 'dense' });
    const [x] = randomTensors(1, [1, 5, 4]);
    const y = layer.forward(x).y;
    const weights = layer.weightsByName();
    const names = ['i_proj', 'f_proj', 'g_proj', 'o_proj', 'g_norm'];
    expect([...weights.keys()]).toEqual(names.map((name) => `${name}.weight`));
    const [i, f, g, o] = names.map((name) => weights.get(`${name}.weight`) as tf.Tensor2D);
    const silu = (z: tf.Tensor) => tf.mul(z, tf.sigmoid(z));
    let h: tf.Tensor = tf.zeros([1, 4]);
    const rows = tf.unstack(x, 1).map((row) => {
      const keep = tf.sigmoid(tf.matMul(row as tf.Tensor2D, f, false, true));
      const input = tf.mul(tf.sub(1, keep), silu(tf.matMul(row as tf.Tensor2D, i, false, true)));
      h = tf.add(tf.mul(keep, h), input);
      const gate = rmsNorm({ x: tf.matMul(row as tf.Tensor2D, g, false, true) }, { eps: 1e-6 });
      return tf.matMul(tf.mul(gate, silu(h)) as tf.Tensor2D, o, false, true);
    });
    expectClose('y', y, tf.stack(rows, 1), 1e-6);
    layer.dispose();
  }));

test('with one convolution: the layer without, after that convolution', () =>
  inScope(() => {
    const layer = new MLGRU({ hiddenSize: 4, useShortConv: true, convSize: 3 });
    const [x] = randomTensors(1, [2, 7, 4]);
    const got = layer.forward(x).y;
    const weights = new Map([...layer.weightsByName()].map(([name, w]) => [name, values(w) as Float32Array]));
    const init = (prefix: string) => (name: string) => weights.get(`${prefix}${name}`) as Float32Array;
    const [convolution, plain] = [new ShortConvolution({ hiddenSize: 4, convSize: 3 }), new MLGRU({ hiddenSize: 4 })];
    convolution.buildWith(init('h_conv1d.'));
    plain.buildWith(init(''));
    expectClose('y', got, plain.forward(convolution.forward(x).y).y, 1e-6);
    for (const one of [layer, convolution, plain]) one.dispose();
  }));

test('with convolutions of i and f: they act on those projections, and on nothing else', () =>
  inScope(() => {
    const layer = new MLGRU({
      hiddenSize: 4,
      linear: 'dense',
      useShortConv: true,
      convSize: 2,
      shareConvKernel: false,
    });
    const [x] = randomTensors(2, [1, 5, 4]);
    const got = layer.forward(x).y;
    const weights = layer.weightsByName();
    const product = (z: tf.Tensor, name: string) =>
      tf.matMul(z as tf.Tensor2D, weights.get(`${name}_proj.weight`) as tf.Tensor2D, false, true);
    const silu = (z: tf.Tensor) => tf.mul(z, tf.sigmoid(z));
    const rows = tf.unstack(x, 1);
    const convolved = (name: string, t: number) => {
      const taps = tf.unstack(tf.reshape(weights.get(`${name}_conv1d.weight`) as tf.Tensor, [4, 2]), 1);
      const before = t > 0 ? tf.mul(taps[0], product(rows[t - 1], name)) : 0;
      return silu(tf.add(tf.mul(taps[1], product(rows[t], name)), before));
    };
    let h: tf.Tensor = tf.zeros([1, 4]);
    const want = rows.map((row, t) => {
      const keep = tf.sigmoid(convolved('f', t));
      h = tf.add(tf.mul(keep, h), tf.mul(tf.sub(1, keep), silu(convolved('i', t))));
      return product(tf.mul(rmsNorm({ x: product(row, 'g') }, { eps: 1e-6 }), silu(h)), 'o');
    });
    expectClose('y', got, tf.stack(want, 1), 1e-6);
    layer.dispose();
  }));

test('lower bounds start as even steps, the first at 0', () =>
  inScope(() => {
    const table = tf.zeros([4, 3]);
    for (const layer of [1, 2, 3])
      for (const bound of Array.from(values(lowerBoundOf(table, layer)))) expect(bound).toBeCloseTo(layer / 4, 6);
    // layer 0 never applies one: with and without a table it is the same
    const [x] = randomTensors(1, [1, 5, 4]);
    const layers = [0, 3].map((numLayers) => new MLGRU({ hiddenSize: 4, numLayers, name: 'a' }));
    const [without, first] = layers.map((layer) => Array.from(values(layer.forward(x).y)));
    expect(first).toEqual(without);
    for (const layer of layers) layer.dispose();
  }));

test('options that do not fit are refused', () => {
  expect(() => new MLGRU({ hiddenSize: 4, layerIndex: 2, numLayers: 2 })).toThrow('below numLayers, got 2 of 2');
  expect(() => new MLGRU({ hiddenSize: 4, expandRatio: 0.3 })).toThrow('must be a positive integer, got 4 * 0.3');
  expect(() => new MLGRU({ hiddenSize: 4, form: 'parallel' as 'chunk' })).toThrow("MLGRU: form must be one of 'auto'");
  expect(() => new BitGLU({ hiddenSize: 4, intermediateSize: 0 })).toThrow(
    'intermediateSize must be a positive integer',
  );
});

describe.each(['wasm', 'cpu'] as const)('stored vectors on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  test.each(goldenEntries('mlgru_layer').map((entry) => [entry.file, entry] as const))('%s', (_, entry) =>
    inScope(() => replay(entry)),
  );
});

/** The layer, or a block: y = h + mlp(norm(h)), h = x + attn(norm(x)). */
function replay({ file, config, outputs, tolerances }: GoldenEntry): void {
  const golden = readGolden(file);
  const number = (name: string) => Number(config[name]);
  const [hiddenSize, layerIndex, eps] = [number('hidden_size'), number('layer_idx'), number('rms_norm_eps')];
  const prefix = `model.layers.${layerIndex}.`;
  const nameOf = (layer: string, name: string) =>
    name === 'lower_bounds' ? 'model.lower_bounds' : `${prefix}${layer}.${name}`;
  const layers: Record<string, SeqLayer> = {
    attn: new MLGRU({ hiddenSize, layerIndex, numLayers: number('num_hidden_layers'), normEps: eps }),
  };
  if (config.block) layers.mlp = new BitGLU({ hiddenSize, intermediateSize: number('inter') });
  const weights: Record<string, tf.Tensor> = {};
  for (const [part, layer] of Object.entries(layers)) {
    layer.buildWith((name) => values(golden[nameOf(part, name)]) as Float32Array);
    for (const [name, w] of layer.weightsByName()) weights[nameOf(part, name)] = w;
  }
  for (const name of config.block ? ['attn_norm', 'mlp_norm'] : [])
    weights[`${prefix}${name}.weight`] = golden[`${prefix}${name}.weight`];
  const norm = (x: tf.Tensor, all: Record<string, tf.Tensor>, name: string) =>
    rmsNorm({ x, weight: all[`${prefix}${name}.weight`] }, { eps });
  const run = (all: Record<string, tf.Tensor>) => {
    if (!config.block) return layers.attn.forward(all.x);
    const mixed = layers.attn.forward(norm(all.x, all, 'attn_norm'));
    const h = tf.add(all.x, mixed.y);
    return { y: tf.add(h, layers.mlp.forward(norm(h, all, 'mlp_norm')).y), state: mixed.state };
  };
  const both = (all: Record<string, tf.Tensor>): tf.Tensor[] => {
    const { y, state } = run(all);
    return [y, state.recurrent];
  };
  const { outputs: made, grads } = outputsAndGrads<Record<string, tf.Tensor>>(both, { x: golden.x, ...weights }, [
    golden.dy,
    undefined,
  ]);
  const got: Record<string, tf.Tensor> = { y: made[0], final_state: made[1], dx: grads.x };
  for (const name of Object.keys(weights)) got[`grad.${name}`] = grads[name];
  for (const name of Object.keys(outputs)) {
    expect(got[name]?.shape, name).toEqual(golden[name].shape);
    const want = values(golden[name]);
    const worst = Array.from(values(got[name])).reduce((w, v, i) => Math.max(w, Math.abs(v - want[i])), 0);
    expect(worst, name).toBeLessThanOrEqual(tolerances[name].max_abs);
  }
  for (const layer of Object.values(layers)) layer.dispose();
}
