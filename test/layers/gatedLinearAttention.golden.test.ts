/** The layer against stored vectors (float64 references): y, final state, and the gradients on x and every weight. */
import type * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import { GatedLinearAttention, type GatedLinearAttentionOptions } from '../../src/layers/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { layerGrads } from '../support/layerGrads.js';
import { inScope } from '../support/opProperties.js';
import { expectClose } from '../support/tensors.js';

type Form = GatedLinearAttentionOptions['form'];

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each(goldenEntries('gla_layer'))('$file', (entry) => {
    test.each<Form>(['auto', 'chunk', 'recurrent', 'parallel'])('%s', (form) => inScope(() => replay(entry, form)));
  });
});

function replay({ file, config, outputs, tolerances }: GoldenEntry, form: Form): void {
  const golden = readGolden(file);
  const layer = layerOf(config, form);
  layer.buildWith((name, { shape }) => {
    const weight = golden[config.key_prefix + name];
    expect(weight.shape, name).toEqual(shape);
    return weight.dataSync() as Float32Array;
  });
  const run = layerGrads(layer, golden.x, { upstream: (name) => (name === 'y' ? golden.dy : undefined) });
  const got: Record<string, tf.Tensor> = {
    y: run.outputs.y,
    final_state: run.outputs['state.recurrent'],
    dx: run.grads.x,
  };
  for (const name of layer.weightsByName().keys()) got[`grad.${config.key_prefix}${name}`] = run.grads[name];
  expect(Object.keys(got).sort()).toEqual(Object.keys(outputs).sort());
  for (const [name, { max_abs, max_ref }] of Object.entries(tolerances))
    expectClose(name, got[name], golden[name], max_abs / Math.max(1, max_ref));
  layer.dispose();
}

/** The published names of the options, as the manifest writes them. */
function layerOf(config: Record<string, string>, form: Form): GatedLinearAttention {
  const number = (name: string) => (config[name] === undefined ? undefined : Number(config[name]));
  const flag = (name: string) => (config[name] === undefined ? undefined : config[name] === 'True');
  return new GatedLinearAttention({
    hiddenSize: Number(config.hidden_size),
    expandK: number('expand_k'),
    expandV: number('expand_v'),
    numHeads: number('num_heads'),
    numKvHeads: number('num_kv_heads'),
    normEps: number('norm_eps'),
    gateLogitNormalizer: number('gate_logit_normalizer'),
    clampMin: number('clamp_min'),
    useShortConv: flag('use_short_conv'),
    useOutputGate: flag('use_output_gate'),
    featureMap: config.feature_map as 'relu' | undefined,
    form,
  });
}
