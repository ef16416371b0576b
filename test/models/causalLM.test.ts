/** The decoder: one pass = pieces = token by token, packing, loss, state, weights. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import { headLoss } from '../../src/models/headLoss.js';
import { CausalLM, type NamedArrays, resolveModelConfig, WeightsError } from '../../src/models/index.js';
import { expectClose, outputsAndGrads, randomTensors } from '../support/tensors.js';
import { heldBytes, idTensor, lively, logitsInPieces, smallConfigs, tokenIds } from './support.js';

const all = Object.entries(smallConfigs).map(([name, config]) => [name, { ...config, ...lively }] as const);

describe.each(all)('%s', (_, config) => {
  test('one pass, pieces and single tokens give the same logits', () => {
    const model = new CausalLM(config, { seed: 1 });
    const before = tf.memory().numTensors;
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 6 }),
        (T, cuts) => {
          const ids = tokenIds(T, T);
          const whole = logitsInPieces(model, ids, [T]);
          const pieces = cuts.filter((_, i) => sum(cuts.slice(0, i + 1)) < T);
          expectClose('pieces', logitsInPieces(model, ids, [...pieces, T - sum(pieces)]), whole, 2e-5);
          expectClose('tokens', logitsInPieces(model, ids, Array(T).fill(1)), whole, 2e-5);
        },
      ),
      { numRuns: 8, seed: 7 },
    );
    expect(tf.memory().numTensors).toBe(before);
    model.dispose();
  });

  test('a batch equals its rows, and the last logits those of the whole', () => {
    const model = new CausalLM(config, { seed: 2 });
    const [B, T, V] = [3, 9, 37];
    const ids = tokenIds(5, B * T);
    tf.tidy(() => {
      const { logits } = model.forward(idTensor(ids, B));
      const rows = [0, 1, 2].map((b) => logitsInPieces(model, ids.subarray(b * T, (b + 1) * T), [T]));
      expectClose(
        'rows',
        logits.dataSync(),
        rows.flatMap((row) => [...row]),
        2e-5,
      );
      const last = model.forward(idTensor(ids, B), undefined, { lastOnly: true }).logits;
      expect(last.shape).toEqual([B, 1, V]);
      expectClose('last', last, tf.slice(logits, [0, T - 1, 0], [B, 1, V]), 2e-5);
    });
    model.dispose();
  });

  test('packed documents equal separate ones: logits, last logits and loss', () => {
    const model = new CausalLM(config, { seed: 3 });
    const cuSeqlens = Int32Array.of(0, 7, 8, 19);
    const [ids, next] = [tokenIds(8, 19), tokenIds(9, 19)];
    const documents = [0, 1, 2].map((i) => [cuSeqlens[i], cuSeqlens[i + 1]]);
    tf.tidy(() => {
      const alone = documents.map(([start, end]) => logitsInPieces(model, ids.subarray(start, end), [end - start]));
      const { logits } = model.forward(idTensor(ids), undefined, { cuSeqlens });
      expectClose(
        'logits',
        logits.dataSync(),
        alone.flatMap((x) => [...x]),
        2e-5,
      );
      const last = model.forward(idTensor(ids), undefined, { cuSeqlens, lastOnly: true }).logits;
      expectClose(
        'last',
        last.dataSync(),
        alone.flatMap((x) => [...x.slice(-37)]),
        2e-5,
      );
      const losses = documents.map(
        ([start, end]) =>
          model.loss(idTensor(ids.subarray(start, end)), idTensor(next.subarray(start, end))).dataSync()[0] *
          (end - start),
      );
      expectClose('loss', model.loss(idTensor(ids), idTensor(next), { cuSeqlens }), [sum(losses) / 19], 2e-6);
    });
    model.dispose();
  });

  test('the loss is the mean negative log likelihood of the logits, without ignored targets', () => {
    const model = new CausalLM(config, { seed: 4 });
    const [ids, targets] = [tokenIds(10, 24), tokenIds(11, 24)];
    for (const ignored of [[], [0, 5, 23]]) {
      for (const i of ignored) targets[i] = -7;
      tf.tidy(() => {
        const { logits } = model.forward(idTensor(ids, 2));
        const want = meanNll(logits.dataSync(), targets, 37, -7);
        expectClose('loss', model.loss(idTensor(ids, 2), idTensor(targets, 2), { ignoreIndex: -7 }), [want], 1e-6);
      });
    }
    model.dispose();
  });

  test('the state holds as many bytes as reported', () => {
    const model = new CausalLM(config, { seed: 5 });
    for (const [batch, T] of [
      [1, 1],
      [2, 3],
      [3, 17],
    ]) {
      tf.tidy(() => {
        expect(heldBytes(model.initialState(batch))).toBe(model.stateBytes(batch, 0));
        const { state } = model.forward(idTensor(tokenIds(6, batch * T), batch));
        expect(heldBytes(state)).toBe(model.stateBytes(batch, T));
      });
    }
    model.dispose();
  });

  test('the initial state is the state before the first token', () => {
    const model = new CausalLM(config, { seed: 6 });
    tf.tidy(() => {
      const ids = idTensor(tokenIds(12, 9));
      expectClose('logits', model.forward(ids, model.initialState(1)).logits, model.forward(ids).logits, 0);
    });
    model.dispose();
  });

  test('every weight gets a gradient, and training steps leak nothing', () => {
    const model = new CausalLM(config, { seed: 7 });
    const step = () =>
      tf.tidy(() => {
        const loss = () => model.loss(idTensor(tokenIds(13, 16), 2), idTensor(tokenIds(14, 16), 2));
        const { grads } = tf.variableGrads(loss, [...model.weights.values()]);
        return [...model.weights].map(
          ([name, weight]) => [name, tf.max(tf.abs(grads[weight.name])).dataSync()[0]] as const,
        );
      });
    for (const [name, largest] of step()) expect(largest, name).toBeGreaterThan(0);
    const before = tf.memory().numTensors;
    step();
    expect(tf.memory().numTensors).toBe(before);
    model.dispose();
  });
});

describe('weights', () => {
  const { gla } = smallConfigs;

  test('bear the published names in the order the data flow; a tied head has none', () => {
    const names = (config: object) => {
      const model = new CausalLM({ ...gla, numLayers: 1, ...config });
      const list = [...model.weights.keys()];
      model.dispose();
      return list;
    };
    const inner = [
      'attn_norm.weight',
      ...[
        'q_proj.weight',
        'k_proj.weight',
        'v_proj.weight',
        'gk_proj.0.weight',
        'gk_proj.1.weight',
        'gk_proj.1.bias',
      ].map((n) => `attn.${n}`),
      ...['g_proj.weight', 'g_norm_swish_gate.weight', 'o_proj.weight'].map((n) => `attn.${n}`),
      'mlp_norm.weight',
      ...['gate', 'up', 'down'].map((n) => `mlp.${n}_proj.weight`),
    ].map((name) => `model.layers.0.${name}`);
    const tied = ['model.embeddings.weight', ...inner, 'model.norm.weight'];
    expect(names({})).toEqual(tied);
    expect(names({ tieEmbeddings: false })).toEqual([...tied, 'lm_head.weight']);
  });

  test('start as the config says: matrices N(0, initializerRange), norms 1, biases 0', () => {
    const config = {
      ...gla,
      hiddenSize: 64,
      mixers: [{ type: 'gla', useShortConv: true } as const],
      initializerRange: 0.05,
    };
    const model = new CausalLM(config, { seed: 3 });
    for (const [name, weight] of model.weights) {
      const values = [...weight.dataSync()];
      if (/norm/.test(name)) expect(new Set(values), name).toEqual(new Set([1]));
      else if (name.endsWith('bias')) expect(new Set(values), name).toEqual(new Set([0]));
      else {
        const [mean, deviation] = [
          sum(values) / values.length,
          Math.sqrt(sum(values.map((x) => x * x)) / values.length),
        ];
        const error = 5 / Math.sqrt(values.length); // five standard errors
        expect(Math.abs(mean), name).toBeLessThan(0.05 * error);
        expect(Math.abs(deviation / 0.05 - 1), name).toBeLessThan(error);
      }
      expect(model.noDecay(name), name).toBe(/norm|bias/.test(name));
    }
    model.dispose();
  });

  test('the same seed gives the same weights on every backend and in models of other depth; another seed others', async () => {
    const read = (config: object, seed: number) => {
      const model = new CausalLM({ ...gla, ...config }, { seed });
      const values = new Map([...model.weights].map(([name, x]) => [name, x.dataSync().slice()]));
      model.dispose();
      return values;
    };
    const [a, deeper, other] = [read({}, 1), read({ numLayers: 3, tieEmbeddings: false }, 1), read({}, 2)];
    for (const [name, values] of a) expect(deeper.get(name), name).toEqual(values);
    expect(other.get('model.embeddings.weight')).not.toEqual(a.get('model.embeddings.weight'));
    await useBackend('cpu');
    const onCpu = read({}, 1);
    await useBackend('wasm');
    expect(onCpu).toEqual(a);
  });

  test('dispose frees all of them', () => {
    const before = tf.memory().numTensors;
    for (const tieEmbeddings of [true, false]) new CausalLM({ ...gla, tieEmbeddings }).dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  test('load whole or not at all, and the error lists everything that does not fit', () => {
    const model = new CausalLM(gla, { seed: 1 });
    const other = new CausalLM(gla, { seed: 2 });
    const weights = arrays(other);
    const embedding = model.weights.get('model.embeddings.weight') as tf.Variable;
    const before = embedding.dataSync().slice();
    const wrong = new Map(weights);
    wrong.delete('model.norm.weight');
    wrong.set('model.extra', { shape: [1], data: new Float32Array(1) });
    wrong.set('model.layers.0.attn_norm.weight', { shape: [17], data: new Float32Array(17) });
    wrong.set('model.layers.1.attn_norm.weight', { shape: [16], data: new Float32Array(3) });
    const load = () => model.loadWeights(wrong);
    expect(load).toThrow(WeightsError);
    for (const part of [
      /missing \(1\): model\.norm\.weight/,
      /not of this model \(1\): model\.extra/,
      /attn_norm\.weight must be \[16\], got \[17\]/,
      /layers\.1\.attn_norm\.weight must hold 16 numbers, got 3/,
      /nothing was loaded/,
    ])
      expect(load).toThrow(part);
    expect(() => new CausalLM(gla, { weights: wrong })).toThrow(WeightsError);
    expect(embedding.dataSync()).toEqual(before);
    const tensors = tf.memory().numTensors;
    model.loadWeights(weights);
    expect(tf.memory().numTensors).toBe(tensors);
    expect(arrays(model)).toEqual(weights);
    const direct = new CausalLM(gla, { weights });
    expect(arrays(direct)).toEqual(weights);
    for (const m of [model, other, direct]) m.dispose();
  });
});

describe('the door', () => {
  test('ids, targets and states that do not fit are refused', () => {
    const model = new CausalLM(smallConfigs.gla);
    tf.tidy(() => {
      expect(() => model.forward(tf.tensor1d([1, 2], 'int32'))).toThrow(/ids must have shape \[B,T\], got \[2\]/);
      expect(() => model.forward(tf.tensor2d([[1, 2]]))).toThrow(/ids must be int32, got float32/);
      expect(() => model.forward(tf.tensor2d([[1, 37]], [1, 2], 'int32'))).toThrow(/37/);
      expect(() => model.forward(tf.tensor2d([[-1]], [1, 1], 'int32'))).toThrow(/-1/);
      const ids = idTensor(tokenIds(1, 4));
      expect(() => model.loss(ids, idTensor(tokenIds(1, 3)))).toThrow(/targets must have shape \[1,4\], got \[1,3\]/);
      expect(() => model.forward(ids, [])).toThrow(/state must be of 2 layers, got 0/);
      expect(() => model.forward(ids, [{}, {}])).toThrow(/state must hold recurrent, got nothing/);
    });
    model.dispose();
  });

  test('a config is resolved, and a resolved one stays as it is', () => {
    const model = new CausalLM(smallConfigs.gla);
    expect(model.config).toEqual(resolveModelConfig(smallConfigs.gla));
    expect(resolveModelConfig(model.config)).toEqual(model.config);
    expect(() => new CausalLM({ hiddenSize: 0 })).toThrow(/hiddenSize/);
    model.dispose();
  });
});

describe.each(['wasm', 'cpu'] as const)('headLoss in pieces on %s', (backend) => {
  test.each([1, 3, 4, 12])('%i rows at a time equal all at once, value and gradients', async (rows) => {
    await useBackend(backend);
    tf.tidy(() => {
      const [N, D, V] = [12, 5, 7];
      const [x, weight] = randomTensors(3, [N, D], [V, D]) as [tf.Tensor2D, tf.Tensor2D];
      for (const ignored of [[], [2, 11], Array.from({ length: N }, (_, i) => i)]) {
        const ids = tokenIds(4, N, V);
        for (const i of ignored) ids[i] = -100;
        const run = (maxLogits: number) =>
          outputsAndGrads(
            (all: { x: tf.Tensor; weight: tf.Tensor }) => [
              headLoss(
                { ...(all as { x: tf.Tensor2D; weight: tf.Tensor2D }), targets: tf.tensor1d(ids, 'int32') },
                { maxLogits },
              ),
            ],
            { x, weight },
            [tf.scalar(1.7)],
          );
        const [want, got] = [run(N * V), run(rows * V)];
        if (rows < N && ignored.length < N) expect(got.outputs[0].dataSync()[0]).toBeGreaterThan(0);
        expectClose('loss', got.outputs[0], want.outputs[0], 1e-6);
        expectClose('dx', got.grads.x, want.grads.x, 1e-6);
        expectClose('dW', got.grads.weight, want.grads.weight, 1e-6);
      }
    });
    await useBackend('wasm');
  });
});

test('headLoss in pieces never holds more than a few pieces of logits', async () => {
  const [N, D, V] = [256, 4, 1000];
  const [x, weight] = randomTensors(6, [N, D], [V, D]) as [tf.Tensor2D, tf.Tensor2D];
  const targets = tf.tensor1d(tokenIds(7, N, V), 'int32');
  const peak = async (maxLogits: number) => {
    const before = tf.memory().numBytes;
    const { peakBytes } = await tf.profile(() =>
      tf.tidy(() => {
        tf.grads((x, weight) =>
          headLoss({ x: x as tf.Tensor2D, weight: weight as tf.Tensor2D, targets }, { maxLogits }),
        )([x, weight]);
      }),
    );
    return peakBytes - before;
  };
  const piece = 4 * 8 * V;
  expect(await peak(8 * V)).toBeLessThan(8 * piece);
  expect(await peak(N * V), 'all at once').toBeGreaterThan(32 * piece);
  tf.dispose([x, weight, targets]);
});

test('documents read packed go on as a batch', () => {
  const model = new CausalLM({ ...smallConfigs['gla with convolutions, kv heads and a head of its own'], ...lively });
  const cuSeqlens = Int32Array.of(0, 5, 7, 16);
  const [ids, next] = [tokenIds(15, 16), tokenIds(16, 3)];
  tf.tidy(() => {
    const { state } = model.forward(idTensor(ids), undefined, { cuSeqlens });
    const { logits } = model.forward(idTensor(next, 3), state);
    const alone = [0, 1, 2].flatMap((i) => {
      const document = [...ids.subarray(cuSeqlens[i], cuSeqlens[i + 1]), next[i]];
      return [...logitsInPieces(model, Int32Array.from(document), [document.length]).slice(-37)];
    });
    expectClose('logits', logits.dataSync(), alone, 2e-5);
  });
  model.dispose();
});

const sum = (numbers: ArrayLike<number>) => Array.from(numbers).reduce((total, x) => total + x, 0);

function arrays(model: CausalLM): NamedArrays {
  return new Map(
    [...model.weights].map(([name, x]) => [name, { shape: [...x.shape], data: Float32Array.from(x.dataSync()) }]),
  );
}

/** In float64, from logits [N, V]. */
function meanNll(logits: ArrayLike<number>, targets: Int32Array, V: number, ignoreIndex: number): number {
  const losses = Array.from(targets).flatMap((target, i) => {
    if (target === ignoreIndex) return [];
    const row = Array.from({ length: V }, (_, v) => logits[i * V + v]);
    const largest = Math.max(...row);
    return [largest + Math.log(sum(row.map((x) => Math.exp(x - largest)))) - row[target]];
  });
  return sum(losses) / losses.length;
}
