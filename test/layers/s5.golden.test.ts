/** S5 against stored vectors (float64 references): the state space alone, and whole blocks with the norm and the residual around it. */
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import { S5, type S5Options } from '../../src/layers/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, outputsAndGrads } from '../support/tensors.js';

type Tensors = Record<string, tf.Tensor>;

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each(goldenEntries('s5_ssm', 's5_layer'))('$file', (entry) => {
    test.each<S5Options['form']>(['auto', 'chunk', 'scan', 'recurrent'])('%s', (form) =>
      inScope(() => replay(entry, form)),
    );
  });
});

function replay({ file, config, outputs, tolerances }: GoldenEntry, form: S5Options['form']): void {
  const golden = readGolden(file);
  const layer = new S5({ ...layerOptions(config), form });
  layer.buildWith((name) => golden[name].dataSync() as Float32Array);
  const weights: Tensors = Object.fromEntries(layer.weightsByName());
  const norms = Object.fromEntries(Object.entries(golden).filter(([name]) => name.startsWith('norm.')));
  const prenorm = config.prenorm === 'True';
  const run = (x: Tensors) => {
    const normed = (z: tf.Tensor) => norm(z, x, config);
    const ssm = layer.forward(prenorm ? normed(x.u) : x.u).y;
    if (config.op === 's5_ssm') return [ssm];
    const sum = tf.add(x.u, ssm);
    return [prenorm ? sum : normed(sum)];
  };
  const { outputs: got, grads } = outputsAndGrads(run, { ...weights, ...norms, u: golden.u } as Tensors, [golden.gy]);
  const close = (name: string, x: tf.Tensor) => {
    const { max_abs, max_ref } = tolerances[name];
    expectClose(name, x, golden[name], max_abs / Math.max(1, max_ref));
  };
  close('y', got[0]);
  const named = Object.keys(outputs).filter((name) => name.startsWith('grad_'));
  expect(named.sort()).toEqual(
    Object.keys(grads)
      .map((name) => `grad_${name}`)
      .sort(),
  );
  for (const name of named) close(name, grads[name.slice(5)]);
  if (outputs.state_final && config.bidirectional === 'False') close('state_final', layer.forward(golden.u).state.x);
  layer.dispose();
}

function layerOptions(config: Record<string, string>): { hiddenSize: number } & Partial<S5Options> {
  const file = { P: Number(config.P), H: Number(config.H), blocks: Number(config.blocks) };
  return {
    hiddenSize: file.H,
    stateSize: 2 * file.P,
    blocks: file.blocks,
    discretisation: config.disc as 'zoh',
    clipEigs: config.clip_eigs === 'True',
    bidirectional: config.bidirectional === 'True',
    cInit: 'complexNormal', // both directions in one C, as the files have it
    gate: (config.activation ?? 'none') as S5Options['gate'],
  };
}

/** Over batch and time, or over the features. */
function norm(x: tf.Tensor, weights: Tensors, config: Record<string, string>): tf.Tensor {
  const { mean, variance } = tf.moments(x, config.norm === 'batch' ? [0, 1] : [2], true);
  const eps = Number(config.norm === 'batch' ? config.bn_eps : config.ln_eps);
  const unit = tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, eps)));
  return tf.add(tf.mul(unit, weights['norm.scale']), weights['norm.bias']);
}
