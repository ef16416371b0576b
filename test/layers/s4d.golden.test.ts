/** The layer against stored vectors (float64 references): y, and the gradients on x and every weight. */
import type * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import { S4D, type S4DOptions } from '../../src/layers/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { layerGrads } from '../support/layerGrads.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, values } from '../support/tensors.js';

/** The layer's names of the stored weights. */
const names: Record<string, string> = {
  log_dt: 'kernel.log_dt',
  log_A_real: 'kernel.log_A_real',
  A_imag: 'kernel.A_imag',
  B: 'kernel.B',
  C: 'kernel.C',
  D: 'D',
  W_out: 'output_linear.0.weight',
  b_out: 'output_linear.0.bias',
  u: 'x',
};

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each(goldenEntries('s4d_layer'))('$file', (entry) => {
    test.each<S4DOptions['form']>(['auto', 'conv', 'chunk', 'recurrent', 'scan'])('%s', (form) =>
      inScope(() => replay(entry, form)),
    );
  });
});

function replay({ file, config, tolerances, outputs }: GoldenEntry, form: S4DOptions['form']): void {
  const golden = readGolden(file);
  const layer = new S4D({ hiddenSize: Number(config.H), stateSize: Number(config.N), form });
  const stored = Object.fromEntries(Object.entries(names).map(([inFile, name]) => [name, golden[inFile]]));
  layer.buildWith((name, { shape }) => {
    expect(stored[name].shape, name).toEqual(shape);
    return values(stored[name]) as Float32Array;
  });
  const upstream = (name: string) => (name === 'y' ? golden.gy : undefined);
  const { outputs: got, grads } = layerGrads(layer, golden.u, { upstream });
  const all: Record<string, tf.Tensor> = { y: got.y };
  for (const [inFile, name] of Object.entries(names)) all[`grad_${inFile}`] = grads[name];
  expect(Object.keys(all).sort()).toEqual(Object.keys(outputs).sort());
  for (const [name, x] of Object.entries(all)) {
    const { max_abs, max_ref } = tolerances[name];
    expectClose(name, x, golden[name], max_abs / Math.max(1, max_ref));
  }
  layer.dispose();
}
