/** FlashBias: the oracle itself, cases worth naming, precision at long positions, memory, and the door checks. */
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { alibi, alibiSlopes, denseBias } from '../../src/bias/index.js';
import {
  type FlashBiasInputs,
  type FlashBiasOptions,
  flashAttention,
  flashBias,
  type MultiplicativeBiasInputs,
  multiplicativeBias,
} from '../../src/chunked/index.js';
import { wasmBytes } from '../../src/chunked/wasm/runtime.js';
import { attentionOracle } from '../oracle/flashAttention.js';
import { type BiasShapes, flashBiasOracle } from '../oracle/flashBias.js';
import { attentionForms, useForm } from '../support/attentionForms.js';
import { inScope, type Tensors } from '../support/opProperties.js';
import { expectClose, normal, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

describe('the oracle', () => {
  const dims = { B: 2, T: 3, S: 4, H: 2, G: 1, K: 3, V: 2 };
  const shapes = { phiQ: [1, 3, 2, 2], phiK: [2, 4, 1, 2], band: [1, 1, 2, 3] } as const satisfies BiasShapes;
  const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b);
  const inputs = {
    ...{ q: normal(1, 36), k: normal(2, 24), v: normal(3, 16) },
    ...{ phiQ: normal(4, size(shapes.phiQ)), phiK: normal(5, size(shapes.phiK)), band: normal(6, size(shapes.band)) },
  };
  const [dO, dLse] = [normal(7, 24), normal(8, 12)];

  test.each([{}, { causal: false }, { window: 2 }])('gradients equal finite differences: %j', (options) => {
    const want = flashBiasOracle(inputs, dims, shapes, options, { dO, dLse });
    const objective = (x: typeof inputs) => {
      const { o, lse } = flashBiasOracle(x, dims, shapes, options);
      return o.reduce((a, y, i) => a + y * dO[i], 0) + lse.reduce((a, y, i) => a + y * dLse[i], 0);
    };
    for (const [name, gradient] of [
      ['phiQ', want.dPhiQ],
      ['phiK', want.dPhiK],
      ['band', want.dBand],
      ['q', want.dq],
    ] as const) {
      const slopes = Array.from(inputs[name], (_, i) => {
        const at = (step: number) => Float64Array.from(inputs[name], (x, n) => (n === i ? x + step : x));
        const moved = (step: number) => ({ ...inputs, [name]: at(step) }) as unknown as typeof inputs;
        return (objective(moved(1e-5)) - objective(moved(-1e-5))) / 2e-5;
      });
      expectClose(name, gradient, slopes, 1e-8);
    }
  });

  test('its bias, by hand', () => {
    const zeros = { q: [0, 0], k: [0, 0], v: [0, 0] };
    const { bias } = flashBiasOracle(
      { ...zeros, phiQ: [1, 2], phiK: [3, 5], band: [10, 20, 30] },
      { B: 1, T: 2, S: 2, H: 1, G: 1, K: 1, V: 1 },
      { phiQ: [1, 2, 1, 1], phiK: [1, 2, 1, 1], band: [1, 1, 1, 3] },
    );
    expect(Array.from(bias)).toEqual([3 + 20, 5 + 30, 6 + 10, 10 + 20]);
  });
});

describe.each(attentionForms)('%s', (name) => {
  const form = useForm(name);

  test('equals attention with the dense bias, at full width over several tiles', () =>
    inScope(() => {
      const [T, S, H, R] = [150, 203, 4, 16];
      const [q, k, v, phiQ, phiK, dO] = randomTensors(
        5,
        ...[
          [2, T, H, 64],
          [2, S, 2, 64],
          [2, S, 2, 32],
        ],
        ...[
          [1, T, H, R],
          [2, S, H, R],
          [2, T, H, 32],
        ],
      );
      const low = outputsAndGrads(
        (x: Tensors) => [flashBias(x as never as FlashBiasInputs, { form }).o],
        { q, k, v, phiQ, phiK },
        [dO],
      );
      const dense = outputsAndGrads(
        ({ phiQ, phiK, ...x }: Tensors) => [
          flashAttention({ ...(x as never as FlashBiasInputs), bias: denseBias({ phiQ, phiK }) }, { form: 'plain' }).o,
        ],
        { q, k, v, phiQ, phiK },
        [dO],
      );
      expectClose('o', low.outputs[0], dense.outputs[0], 1e-5);
      for (const name of ['q', 'k', 'v', 'phiQ', 'phiK'] as const)
        expectClose(`d${name}`, low.grads[name], dense.grads[name], 2e-5);
    }));

  test('ALiBi over 5,000 positions is as exact as at the first ones', () =>
    inScope(() => {
      const [T, S] = [40, 5000];
      const [q, k, v] = randomTensors(6, [1, T, 2, 4], [1, S, 2, 4], [1, S, 2, 3]);
      const slopes = [0.5, 0.0625];
      const { o } = flashBias({ q, k, v, ...alibi({ slopes, queries: T, keys: S }) }, { form });
      const far = Float64Array.from({ length: 2 * T * S }, (_, n) => {
        const [h, i, j] = [Math.floor(n / (T * S)), Math.floor(n / S) % T, n % S];
        return slopes[h] * (j - (S - T + i));
      });
      const want = attentionOracle(
        { q: values(q), k: values(k), v: values(v), bias: far },
        { B: 1, T, S, H: 2, G: 2, K: 4, V: 3 },
        { biasShape: [1, 2] },
      );
      expectClose('o', o, want.o, 2e-6);
    }));

  test('factorGradient takes factors and band for constants and changes no other gradient', () =>
    inScope(() => {
      const [q, k, v, phiQ, phiK, band] = randomTensors(
        9,
        ...[
          [1, 140, 2, 4],
          [1, 140, 2, 4],
          [1, 140, 2, 3],
        ],
        ...[
          [1, 140, 2, 3],
          [1, 140, 1, 3],
          [1, 1, 2, 7],
        ],
      );
      const names = ['phiQ', 'phiK', 'band'] as const;
      const loss =
        (factorGradient: FlashBiasOptions['factorGradient']) =>
        (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, ...[a, b, c]: tf.Tensor[]) => {
          const terms = { phiQ: tf.mul(a ?? phiQ, 1), phiK: b ?? phiK, band: c ?? band };
          return tf.sum(tf.square(flashBias({ q, k, v, ...terms }, { form, factorGradient }).o));
        };
      const want = tf.grads(loss(true))([q, k, v, phiQ, phiK, band]);
      const got = tf.grads((q, k, v) => loss(false)(q, k, v))([q, k, v]);
      for (const [i, gradient] of got.entries()) expectClose('gradient', gradient, want[i], 0);
      expect(() => tf.grads(loss(false))([q, k, v, phiQ, phiK, band])).toThrow('Cannot compute gradient');
      for (const [i, name] of names.entries()) {
        const all = [q, k, v, phiQ, phiK, band];
        const one = tf.grad((x) =>
          (loss([name]) as (...xs: tf.Tensor[]) => tf.Scalar)(...all.map((y, j) => (j === 3 + i ? x : y))),
        );
        expectClose(name, one(all[3 + i]), want[3 + i], 0);
        const others = names.filter((other) => other !== name);
        expect(() => tf.grads(loss(others))(all)).toThrow('Cannot compute gradient');
      }
    }));

  test('factorGradient names what there is', () =>
    inScope(() => {
      const [q, phi] = randomTensors(12, [1, 4, 1, 2], [1, 4, 1, 1]);
      const run = (...names: string[]) =>
        flashBias({ q, k: q, v: q, phiQ: phi, phiK: phi }, { form, factorGradient: names as ['phiQ'] });
      expect(() => run('phiQ', 'bias')).toThrow("factorGradient must be one of 'phiQ', 'phiK', 'band', got 'bias'");
    }));

  test('a band alone', () =>
    inScope(() => {
      const [q, k, v] = randomTensors(10, [1, 9, 1, 4], [1, 9, 1, 4], [1, 9, 1, 3]);
      const band = tf.tensor4d([[[[0, 1e9, 0]]]]); // the own position above all
      expectClose('o', flashBias({ q, k, v, band }, { form, causal: false }).o, v, 1e-6);
    }));

  test('multiplicativeBias equals its definition, with grouped heads too', () =>
    inScope(() => {
      const [T, H, K, R] = [20, 4, 5, 3];
      for (const [G, heads] of [
        [4, 4],
        [2, 4],
        [2, 1],
      ]) {
        const [q, k, v, phiQ, phiK] = randomTensors(
          11,
          ...[
            [1, T, H, K],
            [1, T, G, K],
            [1, T, G, 2],
          ],
          ...[
            [1, T, H, R],
            [1, T, heads, R],
          ],
        );
        const { o } = multiplicativeBias({ q, k, v, phiQ, phiK }, { form });
        const bias = values(denseBias({ phiQ, phiK }));
        const [Q, keys] = [values(q), values(k)];
        const scores = Float64Array.from({ length: H * T * T }, (_, n) => {
          const [h, i, j] = [Math.floor(n / (T * T)), Math.floor(n / T) % T, n % T];
          let product = 0;
          for (let c = 0; c < K; c++)
            product += Q[(i * H + h) * K + c] * keys[(j * G + Math.floor((h * G) / H)) * K + c];
          return K ** -0.5 * product * bias[n];
        });
        const want = attentionOracle(
          { q: new Float32Array(T * H), k: new Float32Array(T * G), v: values(v), bias: scores },
          { B: 1, T, S: T, H, G, K: 1, V: 2 },
        );
        expectClose('o', o, want.o, 1e-5);
      }
    }));
});

test('the memory of the kernel is linear in T', () => {
  const T = 8192; // a bias would take 256 MiB, and its gradient as much
  const before = wasmBytes() as number;
  inScope(() => {
    const [q, k, v] = randomTensors(8, [1, T, 1, 8], [1, T, 1, 8], [1, T, 1, 8]);
    const slopes = tf.tensor1d(alibiSlopes(1));
    tf.grads((q, k, v, slopes) => tf.sum(flashBias({ q, k, v, ...alibi({ slopes, queries: T }) }).o))([
      q,
      k,
      v,
      slopes,
    ]);
  });
  expect((wasmBytes() as number) - before).toBeLessThan(32 << 20);
});

describe('the door', () => {
  const good = { q: [2, 6, 4, 3], k: [2, 7, 2, 3], v: [2, 7, 2, 5], phiQ: [1, 6, 4, 2], phiK: [2, 7, 1, 2] };
  const cases: [what: string, shapes: Record<string, number[]>, options: FlashBiasOptions, message: string][] = [
    ['q of rank 3', { ...good, q: [6, 4, 3] }, {}, 'q must have shape [*,*,*,*], got [6,4,3]'],
    ['too few rows of phiQ', { ...good, phiQ: [1, 5, 4, 2] }, {}, 'phiQ must have shape [*,6,*,*], got [1,5,4,2]'],
    ['another rank', { ...good, phiK: [2, 7, 1, 3] }, {}, 'phiK must have shape [*,7,*,2], got [2,7,1,3]'],
    [
      'no rank',
      { ...good, phiQ: [1, 6, 4, 0], phiK: [1, 7, 4, 0] },
      {},
      'phiQ must have a rank of at least 1, got 0; use flashAttention',
    ],
    ['3 sequences', { ...good, phiQ: [3, 6, 4, 2] }, {}, 'phiQ must be of 1 sequence or of all 2, got 3'],
    ['heads of keys', { ...good, phiK: [2, 7, 2, 2] }, {}, 'phiK must be of 1 head or of all 4, got 2'],
    [
      'rows of the band',
      { ...good, band: [1, 7, 1, 3] },
      {},
      'band must have 1 row or one for each of 6 queries, got 7',
    ],
    ['an even band', { ...good, band: [1, 1, 1, 4] }, {}, 'band must have an odd number of entries, 2 w - 1, got 4'],
    ['heads of the band', { ...good, band: [1, 1, 2, 3] }, {}, 'band must be of 1 head or of all 4, got 2'],
    ['window both ways', good, { window: 3, causal: false }, 'window 3 needs causal: true, got causal: false'],
    ['form', good, { form: 'fast' as 'auto' }, "form must be one of 'auto', 'plain', got 'fast'"],
  ];
  test.each(cases)('%s', (_, shapes, options, message) => {
    const inputs = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, tf.zeros(shape)]));
    const before = tf.memory().numTensors;
    expect(() => flashBias(inputs as never, options)).toThrow(new RangeError(`flashBias: ${message}`));
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose(inputs);
  });

  test('one factor alone, none and no band, a wrong dtype', () =>
    inScope(() => {
      const { phiQ, phiK, ...qkv } = Object.fromEntries(
        Object.entries(good).map(([name, shape]) => [name, tf.zeros(shape)]),
      ) as unknown as MultiplicativeBiasInputs;
      expect(() => flashBias({ ...qkv, phiQ })).toThrow(
        'flashBias: phiK is required, got undefined; pass a float32 tensor',
      );
      expect(() => flashBias({ ...qkv })).toThrow('flashBias: phiQ is required, got undefined; pass a float32 tensor');
      expect(() => flashBias({ ...qkv, phiQ, phiK: tf.cast(phiK, 'int32') })).toThrow(
        "flashBias: phiK must be float32, got int32; cast it with tf.cast(phiK, 'float32')",
      );
      expect(() => multiplicativeBias({ ...qkv, phiQ, phiK: tf.zeros([2, 7, 2, 2]) })).toThrow(
        'multiplicativeBias: phiK must be of 1 head or of all 4, got 2',
      );
    }));
});

test('the example of the README', () =>
  inScope(() => {
    const [B, T, H, K] = [1, 128, 8, 16];
    const [q, k, v] = [0, 1, 2].map(() => tf.randomNormal([B, T, H, K]));
    const { o } = flashBias({ q, k, v, ...alibi({ slopes: alibiSlopes(H), queries: T }) });
    expect(o.shape).toEqual([B, T, H, K]);
  }));
