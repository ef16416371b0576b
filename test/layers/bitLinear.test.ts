import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { bitLinear, quantiseWeight } from '../../src/chunked/index.js';
import {
  BitLinear,
  DeltaNet,
  GatedDeltaNet,
  GatedKalmaNet,
  GatedLinearAttention,
  KimiDeltaAttention,
  MultiHeadLatentAttention,
  type SeqLayer,
  SoftmaxAttention,
  SwiGLU,
} from '../../src/layers/index.js';
import type { TfLayerArgs } from '../../src/layers/seqLayer.js';
import { layerGrads } from '../support/layerGrads.js';
import { describeLayer, inputOf } from '../support/layerProperties.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, randomTensors, values } from '../support/tensors.js';

describeLayer({
  title: 'BitLinear',
  make: (extra) => new BitLinear({ hiddenSize: 6, ...extra }),
  kinks: true, // rounding
});

test('BitLinear has an output of its own width, and options of its op', () =>
  inScope(() => {
    const [x] = randomTensors(1, [2, 3, 6]);
    const layer = new BitLinear({ hiddenSize: 6, outputSize: 9, eps: 0.1, activationBits: null });
    const { y } = layer.forward(x);
    expect(y.shape).toEqual([2, 3, 9]);
    expect(layer.computeOutputShape([null, null, 6])).toEqual([null, null, 9]);
    const [weight, norm] = [...layer.weightsByName().values()];
    expectClose('y', y, bitLinear({ x, weight, norm }, { eps: 0.1, activationBits: null }), 0);
    expect(() => new BitLinear({ hiddenSize: 6, activationBits: 4 as 8 })).toThrow('activationBits must be 8 or null');
    layer.dispose();
  }));

type Make = (extra: TfLayerArgs & { linear: 'dense' | 'bit' }) => SeqLayer;

const layers: Record<string, Make> = {
  DeltaNet: (extra) => new DeltaNet({ hiddenSize: 8, numHeads: 2, useOutputGate: true, ...extra }),
  GatedDeltaNet: (extra) => new GatedDeltaNet({ hiddenSize: 8, numHeads: 2, headDim: 4, ...extra }),
  GatedKalmaNet: (extra) => new GatedKalmaNet({ hiddenSize: 8, numHeads: 2, headDim: 4, numVHeads: 1, ...extra }),
  GatedLinearAttention: (extra) => new GatedLinearAttention({ hiddenSize: 8, numHeads: 2, ...extra }),
  KimiDeltaAttention: (extra) => new KimiDeltaAttention({ hiddenSize: 8, numHeads: 2, headDim: 4, ...extra }),
  MultiHeadLatentAttention: (extra) =>
    new MultiHeadLatentAttention({
      ...{ hiddenSize: 8, numHeads: 2, kvLoraRank: 4, qkNopeHeadDim: 4, qkRopeHeadDim: 2, vHeadDim: 4, qLoraRank: 4 },
      ...extra,
    }),
  SoftmaxAttention: (extra) => new SoftmaxAttention({ hiddenSize: 8, numHeads: 2, ...extra }),
  SwiGLU: (extra) => new SwiGLU({ hiddenSize: 8, intermediateSize: 12, ...extra }),
};

describe.each(Object.entries(layers))('%s with linear: bit', (_, make) => {
  const bit = () => make({ linear: 'bit', name: 'a' });

  test('has a norm for each projection, and no other weight more', () => {
    const [own, dense] = [bit(), make({ linear: 'dense', name: 'a' })].map((layer) => layer.weightSpecs());
    const more = Object.keys(own).filter((name) => !(name in dense));
    expect(more.length).toBeGreaterThan(2);
    for (const name of more) {
      const { shape, kind } = dense[name.replace('.norm.weight', '.weight')];
      expect([own[name].shape, own[name].kind, kind]).toEqual([[shape[1]], 'norm', 'matrix']);
    }
    const projections = Object.keys(dense).filter((name) => /_proj(\.[01])?\.weight$/.test(name));
    expect(more.length).toBeGreaterThanOrEqual(projections.length);
  });

  test('every weight learns, and a projection does not see what rounding takes away', () =>
    inScope(() => {
      const layer = bit();
      const x = inputOf({ title: '', make: bit }, 3, 2, 5);
      const { outputs, grads } = layerGrads(layer, x);
      for (const [name, w] of layer.weightsByName()) {
        expect(values(grads[name]), name).toSatisfy((g: Float32Array) => g.some((v) => v !== 0));
        const isProjection = layer.weightsByName().has(name.replace(/weight$/, 'norm.weight'));
        if (name.endsWith('weight') && isProjection) w.assign(moved(w));
      }
      expectClose('y', layer.forward(x).y, outputs.y, 1e-5);
      layer.dispose();
    }));

  test('one pass, pieces and single tokens agree', () =>
    inScope(() => {
      const layer = bit();
      const x = inputOf({ title: '', make: bit }, 5, 1, 6);
      const whole = layer.forward(x);
      const parts = tf.split(x, 6, 1);
      let state: ReturnType<typeof layer.forward>['state'] | undefined;
      const ys = parts.map((part) => {
        const next = layer.forward(part, state);
        state = next.state;
        return next.y;
      });
      expectClose('y', tf.concat(ys, 1), whole.y, 1e-5);
      layer.dispose();
    }));
});

/** The weight with two entries moved that stay 1 (or -1), and its mean absolute value the same. */
function moved(w: tf.Variable): tf.Tensor {
  const { values: ternary, scale } = quantiseWeight(w);
  const [whole, data] = [ternary, w].map((t) => Float32Array.from(values(t)));
  const step = 0.3 / values(scale)[0];
  for (const sign of [1, -1]) {
    const equal = [...whole.keys()].filter((i) => whole[i] === sign);
    const giver = equal.find((i) => Math.abs(data[i]) * values(scale)[0] > 0.85);
    const taker = equal.find((i) => i !== giver);
    if (giver === undefined || taker === undefined) continue;
    data[giver] -= sign * step;
    data[taker] += sign * step;
    return tf.tensor(data, w.shape);
  }
  throw new Error(`no two entries of ${w.name} to move`);
}

test('linear is dense or bit', () => {
  expect(() => new SwiGLU({ hiddenSize: 8, linear: 'sparse' as 'bit' })).toThrow(
    "SwiGLU: linear must be one of 'dense', 'bit', got 'sparse'",
  );
});
