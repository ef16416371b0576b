/** Scatterbrain as the mixer of a language model: its settings, and a session that streams. */
import * as tf from '@tensorflow/tfjs';
import { beforeAll, expect, test } from 'vitest';
import { useBackend } from '../../src/backend/useBackend.js';
import { ConfigError } from '../../src/config/index.js';
import { CausalLM, type ModelConfigInput, resolveModelConfig } from '../../src/models/index.js';
import { expectClose } from '../support/tensors.js';

beforeAll(() => useBackend('wasm'));

const base: ModelConfigInput = { vocabSize: 20, hiddenSize: 8, numLayers: 2, mixers: ['scatterbrain_attention'] };
const config = (mixer: object): ModelConfigInput => ({
  ...base,
  mixers: [{ type: 'scatterbrain_attention', numHeads: 2, nbFeatures: 6, ...mixer }],
});

test('defaults', () => {
  expect(resolveModelConfig(base).mixers[0]).toEqual({
    ...{ type: 'scatterbrain_attention', numHeads: 4, headDim: 2, nbFeatures: null, windowSize: 64, hash: null },
    ...{ softmaxTemp: null, mode: 'sum', ropeBase: 10000, bidirectional: false },
  });
});

test('prompt and tokens one by one give the logits of one pass, with a state that does not grow', () => {
  const model = new CausalLM(config({ windowSize: 3, hash: { bucketSize: 2, numBuckets: 4 } }), { seed: 3 });
  tf.tidy(() => {
    const ids = Array.from({ length: 17 }, (_, i) => (7 * i * i + i) % 20);
    const row = (from: number, to: number) => tf.tensor2d(ids.slice(from, to), [1, to - from], 'int32');
    const whole = model.forward(row(0, 17)).logits;
    let { logits, state } = model.forward(row(0, 9));
    const parts = [logits];
    for (let t = 9; t < 17; t++) {
      ({ logits, state } = model.forward(row(t, t + 1), state));
      parts.push(logits);
    }
    expectClose('logits', tf.concat(parts, 1), whole, 1e-5);
  });
  expect(model.stateBytes(1, 1000)).toBe(model.stateBytes(1, 10));
  model.dispose();
});

test.each<[object, string, string]>([
  [{ bidirectional: true }, 'bidirectional', 'must be false in a causal model, which may not look ahead'],
  [{ nbFeatures: 5 }, 'nbFeatures', 'must be even, got 5'],
  [{ headDim: 3 }, 'headDim', 'must be even for rotary positions, got 3'],
  [{ hash: { numBuckets: 3 } }, 'hash', 'numBuckets must be even, got 3'],
  [{ hash: { type: 'sorted' } }, 'hash', 'type "sorted" looks ahead and needs "bidirectional": true; take "rotation"'],
  [{ mode: 'sparse-only', windowSize: null }, 'mode', '"sparse-only" needs windowSize or hash'],
])('%j: a fault of %s', (mixer, key, fault) => {
  try {
    resolveModelConfig(config(mixer));
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as ConfigError).problems).toEqual([{ path: `mixers[0].${key}`, message: fault }]);
  }
});
