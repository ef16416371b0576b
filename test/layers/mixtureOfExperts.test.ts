import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import { MixtureOfExperts, type MixtureOfExpertsOptions } from '../../src/layers/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { layerGrads, type Tensors } from '../support/layerGrads.js';
import { describeLayer } from '../support/layerProperties.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, randomTensors, values } from '../support/tensors.js';

const cases: Partial<MixtureOfExpertsOptions>[] = [
  {},
  { numExperts: 6, numExpertsPerToken: 3, numExpertGroup: 3, topkGroup: 2, numSharedExperts: 2, renormalize: false },
  { numSharedExperts: 0, moeIntermediateSize: 5, routedScalingFactor: 2.446 },
];
for (const options of cases)
  describeLayer({
    title: `MixtureOfExperts ${JSON.stringify(options)}`,
    make: (extra) => new MixtureOfExperts({ hiddenSize: 6, numExperts: 4, ...options, ...extra }),
    kinks: true, // another choice of experts
  });

describe.each(['wasm', 'cpu'] as const)('stored vectors on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  test.each(goldenEntries('kimi_moe').map((entry) => [entry.file, entry] as const))('%s', (_, entry) =>
    inScope(() => replay(entry)),
  );
});

function replay({ file, config, outputs, tolerances }: GoldenEntry): void {
  const golden = readGolden(file);
  const number = (name: string) => Number(config[name]);
  const layer = new MixtureOfExperts({
    ...{ hiddenSize: number('hidden_size'), numExperts: number('num_experts'), numSharedExperts: 1 },
    ...{ numExpertsPerToken: number('num_experts_per_token'), moeIntermediateSize: number('moe_intermediate_size') },
    ...{ renormalize: config.moe_renormalize === 'True', routedScalingFactor: number('routed_scaling_factor') },
  });
  const experts = Array.from({ length: number('num_experts') }, (_, e) => e);
  const of = (name: string) => golden[config.key_prefix + name];
  layer.buildWith((name) => {
    const stack = /^experts\.(w\d)$/.exec(name)?.[1];
    return values(stack ? tf.stack(experts.map((e) => of(`experts.${e}.${stack}.weight`))) : of(name)) as Float32Array;
  });
  const upstream = () => golden.dy;
  const { outputs: got, grads } = layerGrads(layer, golden.x, { upstream });
  const named: Tensors = { y: got.y, dx: grads.x };
  for (const [name, gradient] of Object.entries(grads)) {
    const stack = /^experts\.(w\d)$/.exec(name)?.[1];
    const prefix = `grad.${config.key_prefix}`;
    if (stack) for (const e of experts) named[`${prefix}experts.${e}.${stack}.weight`] = tf.gather(gradient, e);
    else named[prefix + name] = gradient;
  }
  for (const name of Object.keys(outputs).filter((name) => name !== 'routing_weights')) {
    const { max_abs, max_ref } = tolerances[name];
    expectClose(name, named[name], golden[name], max_abs / Math.max(1, max_ref));
  }
  const load = values(grads['gate.e_score_correction_bias']);
  expect(Array.from(load)).toEqual(surplus(golden.routing_weights));
  layer.dispose();
}

/** Of the stored weights [tokens, experts]: experts * (tokens of each) - all choices. */
function surplus(weights: tf.Tensor): number[] {
  const counts = tf.sum(tf.cast(tf.greater(weights, 0), 'float32'), 0);
  const [of, all] = [values(counts), values(tf.sum(counts))[0]];
  return Array.from(of, (n) => of.length * n - all);
}

test('a descent along the surplus of load evens it out', () => {
  const layer = new MixtureOfExperts({ hiddenSize: 6, numExperts: 4, numExpertsPerToken: 1, name: 'a' });
  const bias = layer.weightsByName().get('gate.e_score_correction_bias') as tf.Variable;
  const [x] = randomTensors(1, [1, 256, 6]);
  const surplusOf = () =>
    tf.tidy(() => values(tf.variableGrads(() => tf.sum(layer.forward(x).y), [bias]).grads[bias.name]) as Float32Array);
  const worst = () => Math.max(...surplusOf()) / 256; // of the mean load
  const before = worst();
  for (let step = 0; step < 100; step++)
    tf.tidy(() => bias.assign(tf.sub(bias, tf.mul(0.005, tf.sign(tf.tensor1d(surplusOf()))))));
  expect(before).toBeGreaterThan(0.2);
  expect(worst()).toBeLessThan(0.06);
  layer.dispose();
  x.dispose();
});

describe('errors name the layer, what was expected and what came', () => {
  test.each<[object, string]>([
    [{ numExperts: 0 }, 'numExperts must be a positive integer, got 0'],
    [{ numSharedExperts: 0.5 }, 'numSharedExperts must be a positive integer, got 0.5'],
    [{ moeIntermediateSize: 0 }, 'moeIntermediateSize must be a positive integer, got 0'],
    [{ numExpertsPerToken: 9 }, 'numExpertsPerToken must be at most the 8 experts there are to choose from, got 9'],
    [{ numExpertGroup: 3 }, 'numExpertGroup must divide the number of experts, 8, got 3'],
    [{ balanceRate: -1 }, 'balanceRate must be zero or a positive number, got -1'],
    [{ routedScalingFactor: Number.NaN }, 'routedScalingFactor must be a finite number, got NaN'],
  ])('%j', (options, message) => {
    expect(() => new MixtureOfExperts({ hiddenSize: 6, ...options })).toThrow(`MixtureOfExperts: ${message}`);
  });
});
