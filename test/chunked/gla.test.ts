/** GLA: the oracle itself, single cases worth naming, and the door checks. */
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { type GlaOptions, gla } from '../../src/chunked/index.js';
import { type GlaDims, type GlaOracleInputs, type GlaUpstream, glaOracle } from '../oracle/gla.js';
import { drawGate } from '../support/opProperties.js';
import { expectClose, normal, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'chunk', 'recurrent', 'parallel'] as const;

describe('the oracle', () => {
  const dims = { B: 1, T: 7, H: 2, K: 3, V: 4 };

  test.each([
    ['channel', undefined],
    ['head', undefined],
    ['channel', [0, 2, 3, 7]],
  ] as const)('gradients equal finite differences: one gate per %s, documents %j', (gate, cuSeqlens) => {
    const { inputs, upstream } = drawOracleCase(dims, gate, cuSeqlens ? cuSeqlens.length - 1 : 1);
    const loss = (x: GlaOracleInputs) => {
      const { o, finalState } = glaOracle(x, dims, { cuSeqlens });
      return dot(o, upstream.dO as Float64Array) + dot(finalState, upstream.dFinalState as Float64Array);
    };
    const got = glaOracle(inputs, dims, { cuSeqlens }, upstream);
    const grads = { q: got.dq, k: got.dk, v: got.dv, g: got.dg, initialState: got.dInitialState };
    const h = 1e-5;
    for (const [name, grad] of Object.entries(grads)) {
      const at = (i: number, delta: number) => {
        const moved = Float64Array.from(inputs[name as 'q']);
        moved[i] += delta;
        return loss({ ...inputs, [name]: moved });
      };
      const numeric = Float64Array.from(grad, (_, i) => (at(i, h) - at(i, -h)) / (2 * h));
      expectClose(`d${name}`, numeric, grad, 1e-8);
    }
  });

  test('a packed row equals its documents alone', () => {
    const { inputs } = drawOracleCase(dims, 'channel', 2);
    const packed = glaOracle(inputs, dims, { cuSeqlens: [0, 3, 7] });
    const [stateSize, width] = [dims.H * dims.K * dims.V, dims.H * dims.V];
    for (const [n, start, end] of [
      [0, 0, 3],
      [1, 3, 7],
    ]) {
      const rows = (x: ArrayLike<number>) => Float64Array.from(x).slice((x.length / 7) * start, (x.length / 7) * end);
      const state = Float64Array.from(inputs.initialState).slice(n * stateSize, (n + 1) * stateSize);
      const { q, k, v, g } = inputs;
      const document = { q: rows(q), k: rows(k), v: rows(v), g: rows(g), initialState: state };
      const alone = glaOracle(document, { ...dims, T: end - start });
      expect(packed.o.slice(start * width, end * width)).toEqual(alone.o);
      expect(packed.finalState.slice(n * stateSize, (n + 1) * stateSize)).toEqual(alone.finalState);
    }
  });

  test('a closed gate gives a finite result and no gradient', () => {
    const { inputs, upstream } = drawOracleCase(dims, 'head', 1);
    const g = Float64Array.from(inputs.g, (x, i) => (i % 3 === 0 ? Number.NEGATIVE_INFINITY : x));
    const { o, finalState, ...grads } = glaOracle({ ...inputs, g }, dims, {}, upstream);
    for (const x of [o, finalState, ...Object.values(grads)]) expect(x.every(Number.isFinite)).toBe(true);
    expect(grads.dg.every((x, i) => i % 3 !== 0 || x === 0)).toBe(true);
  });
});

describe.each(forms)('%s', (form) => {
  test('a worked example: one channel, decay 1/2, then everything forgotten', () => {
    const [q, k] = [tf.ones([1, 3, 1, 1]), tf.ones([1, 3, 1, 1])];
    const v = tf.tensor4d([1, 10, 100], [1, 3, 1, 1]);
    const g = tf.tensor4d([0, -Math.LN2, Number.NEGATIVE_INFINITY], [1, 3, 1, 1]);
    const { o, finalState } = gla({ q, k, v, g, initialState: tf.fill([1, 1, 1, 1], 4) }, { form, scale: 1 });
    expectClose('o', o, [5, 12.5, 100], 1e-6);
    expectClose('finalState', finalState, [100], 1e-6);
  });

  test('a closed gate at every other token: gradients finite, zero on the gate, and right elsewhere', () => {
    const dims = { B: 2, T: 21, H: 2, K: 5, V: 3 };
    const { inputs, upstream } = drawOracleCase(dims, 'head', dims.B);
    const g = Float32Array.from(inputs.g, (x, i) => (Math.floor(i / dims.H) % 2 ? Number.NEGATIVE_INFINITY : x));
    expectSame(form, { ...inputs, g }, dims, upstream, 'head');
  });

  test('every gate -1000: no state survives a token', () => {
    const dims = { B: 1, T: 70, H: 1, K: 4, V: 4 };
    const { inputs, upstream } = drawOracleCase(dims, 'channel', 1);
    expectSame(form, { ...inputs, g: inputs.g.map(() => -1000) }, dims, upstream, 'channel');
  });

  test('no forgetting at all (g = 0) is plain linear attention', () => {
    const dims = { B: 1, T: 65, H: 1, K: 4, V: 2 };
    const { inputs, upstream } = drawOracleCase(dims, 'channel', 1);
    expectSame(form, { ...inputs, g: inputs.g.map(() => 0) }, dims, upstream, 'channel');
  });

  test('token by token with the carried state equals one pass', () => {
    const [q, k, v] = randomTensors(5, [2, 9, 2, 4], [2, 9, 2, 4], [2, 9, 2, 6]);
    const g = tf.tensor(drawGate('mild')(5, 2 * 9 * 2), [2, 9, 2]);
    const whole = gla({ q, k, v, g }, { form });
    let initialState: tf.Tensor | undefined;
    for (let t = 0; t < 9; t++) {
      const [qt, kt, vt, gt] = [q, k, v, g].map((x) => tf.gather(x, [t], 1));
      const { o, finalState } = gla({ q: qt, k: kt, v: vt, g: gt, initialState }, { form });
      expectClose(`o at ${t}`, o, tf.gather(whole.o, [t], 1), 2e-6);
      initialState = finalState;
    }
    expectClose('finalState', initialState as tf.Tensor, whole.finalState, 2e-6);
  });

  test('the scale is K^-0.5 unless given', () => {
    const [q, k, v] = randomTensors(6, [1, 5, 1, 4], [1, 5, 1, 4], [1, 5, 1, 2]);
    const g = tf.zeros([1, 5, 1]);
    const { o } = gla({ q, k, v, g }, { form });
    expectClose('o', o, gla({ q: tf.mul(q, 0.5), k, v, g }, { form, scale: 1 }).o, 1e-6);
  });
});

describe('the door', () => {
  const good = { q: [2, 6, 2, 4], k: [2, 6, 2, 4], v: [2, 6, 2, 3], g: [2, 6, 2, 4] };
  const one = { q: [1, 6, 2, 4], k: [1, 6, 2, 4], v: [1, 6, 2, 3], g: [1, 6, 2] };
  const none = { q: [2, 0, 2, 4], k: [2, 0, 2, 4], v: [2, 0, 2, 3], g: [2, 0, 2, 4] };
  const offsets = (...n: number[]) => ({ cuSeqlens: Int32Array.from(n) });

  const cases: [what: string, shapes: Record<string, number[]>, options: GlaOptions, message: string][] = [
    ['q of rank 3', { ...good, q: [6, 2, 4] }, {}, 'q must have shape [*,*,*,*], got [6,2,4]'],
    ['k too wide', { ...good, k: [2, 6, 2, 5] }, {}, 'k must have shape [2,6,2,4], got [2,6,2,5]'],
    ['v too short', { ...good, v: [2, 5, 2, 3] }, {}, 'v must have shape [2,6,2,*], got [2,5,2,3]'],
    ['g of rank 2', { ...good, g: [2, 6] }, {}, 'g must have shape [2,6,2] or [2,6,2,4], got [2,6]'],
    ['g wrong', { ...good, g: [2, 6, 3] }, {}, 'g must have shape [2,6,2], got [2,6,3]'],
    ['no tokens', none, {}, 'q and v must not be empty, got [2,0,2,4] and [2,0,2,3]'],
    ['state', { ...good, initialState: [2, 2, 3, 4] }, {}, 'initialState must have shape [2,2,4,3], got [2,2,3,4]'],
    ['chunkSize 0', good, { chunkSize: 0 }, 'chunkSize must be a positive integer, got 0'],
    ['chunkSize 1.5', good, { chunkSize: 1.5 }, 'chunkSize must be a positive integer, got 1.5'],
    ['scale', good, { scale: Number.NaN }, 'scale must be a finite number, got NaN'],
    [
      'form',
      good,
      { form: 'fast' as 'auto' },
      "form must be one of 'auto', 'chunk', 'recurrent', 'parallel', got 'fast'",
    ],
    [
      'packed batch',
      good,
      offsets(0, 6),
      'cuSeqlens needs a batch of 1 (sequences packed along time), got a batch of 2',
    ],
    ['short offsets', one, offsets(0, 5), 'cuSeqlens must rise strictly from 0 to 6, got [0,5]'],
    ['empty document', one, offsets(0, 3, 3, 6), 'cuSeqlens must rise strictly from 0 to 6, got [0,3,3,6]'],
    [
      'states',
      { ...one, initialState: [1, 2, 4, 3] },
      offsets(0, 3, 6),
      'initialState must have shape [2,2,4,3], got [1,2,4,3]',
    ],
  ]; // prettier-ignore
  test.each(cases)('%s', (_, shapes, options, message) => {
    const inputs = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, tf.zeros(shape)]));
    const before = tf.memory().numTensors;
    expect(() => gla(inputs as never, options)).toThrow(new RangeError(`gla: ${message}`));
    expect(tf.memory().numTensors).toBe(before);
  });

  test('a missing input and a wrong dtype', () => {
    const { q, k, v, g } = Object.fromEntries(Object.entries(good).map(([name, shape]) => [name, tf.zeros(shape)]));
    expect(() => gla({ q, v, g } as never)).toThrow('gla: k is required, got undefined; pass a float32 tensor');
    const int = tf.cast(v, 'int32');
    expect(() => gla({ q, k, v: int, g })).toThrow(
      "gla: v must be float32, got int32; cast it with tf.cast(v, 'float32')",
    );
  });
});

test('the example of the README', () => {
  const [B, T, H, K, V] = [1, 128, 2, 16, 32];
  const [q, k] = [tf.randomNormal([B, T, H, K]), tf.randomNormal([B, T, H, K])];
  const v = tf.randomNormal([B, T, H, V]);
  const g = tf.mul(-0.05, tf.randomUniform([B, T, H, K]));
  const { o, finalState } = gla({ q, k, v, g });
  expect(o.shape).toEqual([B, T, H, V]);
  const next = gla({ q, k, v, g, initialState: finalState });
  expect(next.finalState.shape).toEqual([B, H, K, V]);
});

interface OracleCase {
  inputs: { q: Float32Array; k: Float32Array; v: Float32Array; g: Float32Array; initialState: Float32Array };
  upstream: GlaUpstream;
}

function drawOracleCase({ B, T, H, K, V }: GlaDims, gate: 'channel' | 'head', N: number): OracleCase {
  const [tokens, state] = [B * T * H, N * H * K * V];
  return {
    inputs: {
      q: normal(1, tokens * K),
      k: normal(2, tokens * K),
      v: normal(3, tokens * V),
      g: normal(4, gate === 'head' ? tokens : tokens * K).map((x) => -Math.abs(x)),
      initialState: normal(5, state),
    },
    upstream: { dO: normal(6, tokens * V), dFinalState: normal(7, state) },
  };
}

/** The op in `form` equals the oracle: outputs, final state and all gradients. */
function expectSame(
  form: (typeof forms)[number],
  { q, k, v, g, initialState }: OracleCase['inputs'],
  dims: GlaDims,
  { dO, dFinalState }: GlaUpstream,
  gate: 'channel' | 'head',
): void {
  const { B, T, H, K, V } = dims;
  const want = glaOracle({ q, k, v, g, initialState }, dims, {}, { dO, dFinalState });
  const inputs = {
    q: tf.tensor(q, [B, T, H, K]),
    k: tf.tensor(k, [B, T, H, K]),
    v: tf.tensor(v, [B, T, H, V]),
    g: tf.tensor(g, gate === 'head' ? [B, T, H] : [B, T, H, K]),
    initialState: tf.tensor(initialState, [B, H, K, V]),
  };
  const upstreams = [tf.tensor(dO as Float32Array, [B, T, H, V]), tf.tensor(dFinalState as Float32Array, [B, H, K, V])];
  const run = (x: typeof inputs) => {
    const { o, finalState } = gla(x, { form, chunkSize: 16 });
    return [o, finalState];
  };
  const { outputs, grads } = outputsAndGrads(run, inputs, upstreams);
  expectClose('o', outputs[0], want.o, 1e-5);
  expectClose('finalState', outputs[1], want.finalState, 1e-5);
  for (const name of ['q', 'k', 'v', 'g'] as const) expectClose(`d${name}`, grads[name], want[`d${name}`], 1e-5);
  expectClose('dInitialState', grads.initialState, want.dInitialState, 1e-5);
  const closed = Array.from(values(grads.g)).filter((_, i) => g[i] === Number.NEGATIVE_INFINITY);
  expect(closed.every((x) => x === 0)).toBe(true);
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
