/** Attention: the oracle itself, single cases worth naming, and the door checks. */
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { type FlashAttentionOptions, flashAttention } from '../../src/chunked/index.js';
import { wasmBytes } from '../../src/chunked/wasm/runtime.js';
import { type AttentionDims, type AttentionOracleOptions, attentionOracle } from '../oracle/flashAttention.js';
import { attentionForms, useForm } from '../support/attentionForms.js';
import { expectClose, normal, outputsAndGrads, random, randomTensors, values } from '../support/tensors.js';

type Form = 'auto' | 'plain';

interface Drawn {
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
  dO: Float32Array;
  dLse: Float32Array;
}

function draw({ B, T, S, H, G, K, V }: AttentionDims, seed: number): Drawn {
  return {
    q: normal(seed, B * T * H * K),
    k: normal(seed + 1, B * S * G * K),
    v: normal(seed + 2, B * S * G * V),
    dO: normal(seed + 3, B * T * H * V),
    dLse: normal(seed + 4, B * T * H),
  };
}

/** The op in `form` equals the oracle: o, lse and all gradients. `terms` as in `expectClose`, for the gradients on q and k. */
function expectSame(
  form: Form,
  { q, k, v, dO, dLse }: Drawn,
  dims: AttentionDims,
  options: AttentionOracleOptions & FlashAttentionOptions = {},
  terms = 1,
): void {
  tf.tidy(() => {
    const { B, T, S, H, G, K, V } = dims;
    const want = attentionOracle({ q, k, v }, dims, options, { dO, dLse });
    const inputs = {
      q: tf.tensor(q, [B, T, H, K]),
      k: tf.tensor(k, [B, S, G, K]),
      v: tf.tensor(v, [B, S, G, V]),
    };
    const upstreams = [tf.tensor(dO, [B, T, H, V]), tf.tensor(dLse, [B, T, H])];
    const run = (x: typeof inputs) => {
      const { o, lse } = flashAttention(x, { ...options, form });
      return [o, lse];
    };
    const { outputs, grads } = outputsAndGrads(run, inputs, upstreams);
    expectClose('o', outputs[0], want.o, 3e-6);
    expectClose('lse', outputs[1], want.lse, 1e-6);
    expectClose('dq', grads.q, want.dq, 3e-6, terms);
    expectClose('dk', grads.k, want.dk, 3e-6, terms);
    expectClose('dv', grads.v, want.dv, 3e-6);
  });
}

describe('the oracle', () => {
  test.each([[{}], [{ causal: false }], [{ window: 2 }], [{ cuSeqlens: [0, 2, 5] }]])(
    'gradients equal finite differences: %j',
    (options) => {
      const dims = { B: 1, T: 5, S: 5, H: 4, G: 2, K: 3, V: 2 };
      const { dO, dLse, ...inputs } = draw(dims, 1);
      const want = attentionOracle(inputs, dims, options, { dO, dLse });
      const objective = (x: Record<'q' | 'k' | 'v', ArrayLike<number>>) => {
        const { o, lse } = attentionOracle(x, dims, options);
        return o.reduce((a, y, i) => a + y * dO[i], 0) + lse.reduce((a, y, i) => a + y * dLse[i], 0);
      };
      for (const name of ['q', 'k', 'v'] as const) {
        const slopes = Array.from(inputs[name], (_, i) => {
          const at = (step: number) => Float64Array.from(inputs[name], (x, n) => (n === i ? x + step : x));
          return (objective({ ...inputs, [name]: at(1e-5) }) - objective({ ...inputs, [name]: at(-1e-5) })) / 2e-5;
        });
        expectClose(`d${name}`, want[`d${name}`], slopes, 1e-8);
      }
    },
  );

  test('two keys, by hand', () => {
    const { o, lse } = attentionOracle(
      { q: [1, 1], k: [0, Math.log(3)], v: [4, 8] },
      { B: 1, T: 2, S: 2, H: 1, G: 1, K: 1, V: 1 },
    );
    expectClose('o', o, [4, 7], 1e-15);
    expectClose('lse', lse, [0, Math.log(4)], 1e-15);
  });
});

describe.each(attentionForms)('%s', (name) => {
  const form = useForm(name);

  test.each([
    ['causal', {}],
    ['all keys', { causal: false }],
    ['a window over tiles', { window: 70 }],
    ['a window inside a tile', { window: 5 }],
    ['documents', { cuSeqlens: Int32Array.of(0, 1, 66, 67, 150, 203) }],
    ['documents with a window', { cuSeqlens: Int32Array.of(0, 130, 203), window: 40 }],
  ])('at full width over several tiles: %s', (_, options) => {
    const dims = { B: 1, T: 203, S: 203, H: 2, G: 1, K: 64, V: 64 };
    expectSame(form, draw(dims, 5), dims, options);
  });

  test('more keys than queries, and more queries than keys where all see all', () => {
    const dims = { B: 2, T: 70, S: 197, H: 3, G: 3, K: 16, V: 24 };
    expectSame(form, draw(dims, 7), dims, { window: 90 });
    const cross = { ...dims, T: 75, S: 9 };
    expectSame(form, draw(cross, 8), cross, { causal: false });
  });

  test('scores around 1e4, a few units apart', () => {
    const dims = { B: 1, T: 100, S: 100, H: 1, G: 1, K: 4, V: 3 };
    const next = random(3);
    // Every product and sum is exact in float32, so the scores are too: what differs from the oracle is the op's own error.
    const q = new Float32Array(400).map(() => 100);
    const k = new Float32Array(400).map(() => 25 + Math.floor(4 * next()) / 64);
    expectSame(form, { ...draw(dims, 9), q, k }, dims, { scale: 1 }, 100);
  });

  test.each([1e4, 1e8, -1e8])('scores of size %d give no NaN', (scale) => {
    const [q, k, v, dO] = randomTensors(4, [1, 80, 2, 8], [1, 80, 2, 8], [1, 80, 2, 5], [1, 80, 2, 5]);
    const run = (x: { q: tf.Tensor; k: tf.Tensor; v: tf.Tensor }) => [flashAttention(x, { scale, form }).o];
    const { outputs, grads } = outputsAndGrads(run, { q, k, v }, [dO]);
    for (const x of [outputs[0], grads.q, grads.k, grads.v])
      expect(Array.from(values(x)).every(Number.isFinite)).toBe(true);
  });

  test('a window of 1 returns v, and lse is the own score', () => {
    const [q, k, v] = randomTensors(2, [2, 70, 2, 4], [2, 70, 2, 4], [2, 70, 2, 3]);
    const { o, lse } = flashAttention({ q, k, v }, { window: 1, form });
    expectClose('o', o, v, 0);
    expectClose('lse', lse, tf.mul(0.5, tf.sum(tf.mul(q, k), 3)), 1e-6);
  });

  test('a head of k serves its group of heads of q in order', () => {
    const [q, k, v] = randomTensors(3, [1, 9, 6, 4], [1, 9, 2, 4], [1, 9, 2, 5]);
    const repeat = (x: tf.Tensor) => tf.gather(x, [0, 0, 0, 1, 1, 1], 2);
    const want = flashAttention({ q, k: repeat(k), v: repeat(v) }, { form });
    const got = flashAttention({ q, k, v }, { form });
    expectClose('o', got.o, want.o, 1e-6);
    expectClose('lse', got.lse, want.lse, 1e-6);
  });

  test('token by token with the kept keys and values equals one pass', () => {
    const [q, k, v] = randomTensors(6, [2, 67, 4, 6], [2, 67, 2, 6], [2, 67, 2, 19]);
    const whole = flashAttention({ q, k, v }, { window: 65, form });
    for (const t of [0, 1, 30, 63, 64, 66]) {
      const [kt, vt] = [k, v].map((x) => tf.slice(x, [0, 0, 0, 0], [2, t + 1, 2, x.shape[3] as number]));
      const { o, lse } = flashAttention({ q: tf.gather(q, [t], 1), k: kt, v: vt }, { window: 65, form });
      expectClose(`o at ${t}`, o, tf.gather(whole.o, [t], 1), 2e-6);
      expectClose(`lse at ${t}`, lse, tf.gather(whole.lse, [t], 1), 2e-6);
    }
  });

  test('biasGradient: false takes the bias for a constant and changes no other gradient', () => {
    const [q, k, v, bias] = randomTensors(9, [1, 140, 2, 4], [1, 140, 2, 4], [1, 140, 2, 3], [1, 2, 140, 140]);
    const loss = (biasGradient: boolean) => (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, bias: tf.Tensor) =>
      tf.sum(tf.square(flashAttention({ q, k, v, bias: tf.mul(bias, 1) }, { form, biasGradient }).o));
    const want = tf.grads(loss(true))([q, k, v, bias]);
    const got = tf.grads((q, k, v) => loss(false)(q, k, v, bias))([q, k, v]);
    for (const [i, gradient] of got.entries()) expectClose('gradient', gradient, want[i], 0);
    expect(Math.max(...Array.from(values(want[3]), Math.abs))).toBeGreaterThan(1e-3);
    expect(() => tf.grad((bias) => loss(false)(q, k, v, bias))(bias)).toThrow('Cannot compute gradient');
  });

  test('a mask made inside the differentiated function serves the backward pass too', () => {
    const [q, k, v] = randomTensors(12, [1, 140, 1, 4], [1, 140, 1, 4], [1, 140, 1, 3]);
    const bits = Uint8Array.from({ length: 140 }, (_, j) => Number(j % 3 > 0));
    const loss = (keyMask?: tf.Tensor) => (q: tf.Tensor) =>
      tf.sum(tf.square(flashAttention({ q, k, v, keyMask: keyMask ?? tf.tensor(bits, [1, 140], 'bool') }, { form }).o));
    const outside = tf.tensor(bits, [1, 140], 'bool');
    expectClose('dq', tf.grad(loss())(q), tf.grad(loss(outside))(q), 0);
  });

  test('hides no NaN', () => {
    const [q, k, v] = randomTensors(7, [1, 12, 1, 4], [1, 12, 1, 4], [1, 12, 1, 4]);
    const bad = tf.tensor4d(
      Array.from(values(k), (x, i) => (Math.floor(i / 4) === 5 ? Number.NaN : x)),
      [1, 12, 1, 4],
    );
    const { o, lse } = flashAttention({ q, k: bad, v }, { form });
    const after = (x: tf.Tensor) => Array.from(values(tf.slice(x, [0, 5], [1, 7])), Number.isNaN);
    for (const x of [o, lse]) expect(after(x).every(Boolean)).toBe(true);
  });
});

describe.each(attentionForms)('%s: a NaN of one query', (name) => {
  const form = useForm(name);

  test('reaches the gradients of all values that it sees', () => {
    tf.tidy(() => {
      const [drawn, k, v] = randomTensors(3, [1, 12, 1, 4], [1, 12, 1, 4], [1, 12, 1, 4]);
      const q = tf.tensor4d(
        Array.from(values(drawn), (x, i) => (Math.floor(i / 4) === 5 ? Number.NaN : x)),
        [1, 12, 1, 4],
      );
      const [dv] = tf.grads((x) => tf.sum(flashAttention({ q, k, v: x }, { form }).o))([v]);
      const seen = Array.from(values(tf.slice(dv, 0, [1, 6])), Number.isNaN);
      expect(seen.every(Boolean)).toBe(true);
    });
  });
});

test('the memory of the kernel is linear in T', () => {
  const T = 8192; // a matrix of scores would take 256 MiB
  const before = wasmBytes() as number;
  const [q, k, v] = randomTensors(8, [1, T, 1, 8], [1, T, 1, 8], [1, T, 1, 8]);
  tf.tidy(() => void tf.grads((...x) => tf.sum(flashAttention({ q: x[0], k: x[1], v: x[2] }).o))([q, k, v]));
  expect((wasmBytes() as number) - before).toBeLessThan(32 << 20);
});

describe('the door', () => {
  const good = { q: [2, 6, 4, 3], k: [2, 6, 2, 3], v: [2, 6, 2, 5] };
  const one = { q: [1, 6, 4, 3], k: [1, 6, 2, 3], v: [1, 6, 2, 5] };
  const short = { q: [1, 6, 2, 3], k: [1, 5, 2, 3], v: [1, 5, 2, 3] };
  const none = { q: [2, 0, 4, 3], k: [2, 6, 2, 3], v: [2, 6, 2, 5] };
  const offsets = (...n: number[]) => ({ cuSeqlens: Int32Array.from(n) });

  const cases: [what: string, shapes: Record<string, number[]>, options: FlashAttentionOptions, message: string][] = [
    ['q of rank 3', { ...good, q: [6, 4, 3] }, {}, 'q must have shape [*,*,*,*], got [6,4,3]'],
    ['k too wide', { ...good, k: [2, 6, 2, 4] }, {}, 'k must have shape [2,*,*,3], got [2,6,2,4]'],
    ['another batch', { ...good, k: [1, 6, 2, 3] }, {}, 'k must have shape [2,*,*,3], got [1,6,2,3]'],
    ['v too short', { ...good, v: [2, 5, 2, 5] }, {}, 'v must have shape [2,6,2,*], got [2,5,2,5]'],
    ['a mask too short', { ...good, keyMask: [2, 5] }, {}, 'keyMask must have shape [2,6], got [2,5]'],
    ['a bias too narrow', { ...good, bias: [1, 1, 6, 5] }, {}, 'bias must have shape [*,*,6,6], got [1,1,6,5]'],
    ['a bias of 3', { ...good, bias: [3, 1, 6, 6] }, {}, 'bias must be of 1 sequence or of all 2, got 3'],
    ['a bias of 2 heads', { ...good, bias: [2, 2, 6, 6] }, {}, 'bias must be of 1 head or of all 4, got 2'],
    ['no tokens', none, {}, 'q, k and v must not be empty, got [2,0,4,3], [2,6,2,3] and [2,6,2,5]'],
    [
      'heads that do not divide',
      { ...good, q: [2, 6, 3, 3] },
      {},
      'the heads of q must be a multiple of those of k, got 3 and 2',
    ],
    [
      'too few keys',
      short,
      {},
      "causal queries are the last of the keys' positions and need S >= T, got S = 5 and T = 6; give every key, or causal: false",
    ],
    ['window 0', good, { window: 0 }, 'window must be a positive integer, got 0'],
    ['window both ways', good, { window: 3, causal: false }, 'window 3 needs causal: true, got causal: false'],
    ['scale', good, { scale: Number.POSITIVE_INFINITY }, 'scale must be a finite number, got Infinity'],
    ['form', good, { form: 'fast' as 'auto' }, "form must be one of 'auto', 'plain', got 'fast'"],
    [
      'packed batch',
      good,
      offsets(0, 6),
      'cuSeqlens needs a batch of 1 (sequences packed along time), got a batch of 2',
    ],
    ['short offsets', one, offsets(0, 5), 'cuSeqlens must rise strictly from 0 to 6, got [0,5]'],
    [
      'packed with a past',
      { ...one, q: [1, 2, 4, 3] },
      offsets(0, 2),
      'cuSeqlens needs as many keys as queries, got S = 6 and T = 2',
    ],
  ];
  test.each(cases)('%s', (_, shapes, options, message) => {
    const inputs = Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [name, tf.zeros(shape, name === 'keyMask' ? 'bool' : 'float32')]),
    );
    const before = tf.memory().numTensors;
    expect(() => flashAttention(inputs as never, options)).toThrow(new RangeError(`flashAttention: ${message}`));
    expect(tf.memory().numTensors).toBe(before);
  });

  test('a missing input and a wrong dtype', () => {
    const { q, k, v } = Object.fromEntries(Object.entries(good).map(([name, shape]) => [name, tf.zeros(shape)]));
    expect(() => flashAttention({ q, v } as never)).toThrow(
      'flashAttention: k is required, got undefined; pass a float32 tensor',
    );
    expect(() => flashAttention({ q, k, v, keyMask: tf.zeros([2, 6]) })).toThrow(
      "flashAttention: keyMask must be bool, got float32; cast it with tf.cast(keyMask, 'bool')",
    );
    const int = tf.cast(v, 'int32');
    expect(() => flashAttention({ q, k, v: int })).toThrow(
      "flashAttention: v must be float32, got int32; cast it with tf.cast(v, 'float32')",
    );
  });
});

test('the example of the README', () => {
  const [B, T, H, G, K, V] = [1, 128, 8, 2, 32, 32];
  const q = tf.randomNormal([B, T, H, K]);
  const [k, v] = [tf.randomNormal([B, T, G, K]), tf.randomNormal([B, T, G, V])];
  const { o, lse } = flashAttention({ q, k, v }, { window: 64 });
  expect([o.shape, lse.shape]).toEqual([
    [B, T, H, V],
    [B, T, H],
  ]);
  const last = tf.slice(q, [0, T - 1, 0, 0], [B, 1, H, K]);
  expectClose(
    'o',
    flashAttention({ q: last, k, v }, { window: 64 }).o,
    tf.slice(o, [0, T - 1, 0, 0], [B, 1, H, V]),
    1e-6,
  );
});
