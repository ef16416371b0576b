/** The delta rules and DPLR: the oracles themselves, how the ops hold one another, single cases worth naming, and the door checks. */
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { type DeltaOptions, deltaRule, dplr, gatedDeltaRule, kda, l2Norm } from '../../src/chunked/index.js';
import { type DeltaKind, type DeltaName, deltaGates, deltaOp, dplrOp } from '../support/deltaOps.js';
import {
  type Arrays,
  drawSample,
  drawUnitRows,
  expectOracle,
  gateStrengths,
  gradName,
  inScope,
  type MixingOp,
  type Sizes,
  type Tensors,
} from '../support/opProperties.js';
import { expectClose, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'chunk', 'recurrent'] as const;
const names = Object.keys(deltaGates) as DeltaName[];

describe('the oracles', () => {
  const sizes = { B: 1, T: 7, H: 2, K: 3, V: 4 };
  const kinds: [string, MixingOp][] = [
    ...names.map((name): [string, MixingOp] => [name, deltaOp(name, { gate: 'strong', groups: 2 })]),
    ['dplr', dplrOp('strong')],
  ];

  test.each(kinds)('%s: gradients equal finite differences, in one sequence and in documents', (_, op) => {
    for (const cuSeqlens of [undefined, Int32Array.of(0, 2, 3, 7)])
      inScope(() => {
        const sample = drawSample(op, sizes, { seed: 4, cuSeqlens });
        const [inputs, upstreams] = [plain(sample.inputs), plain(sample.upstreams)];
        const loss = (x: Arrays) => {
          const outputs = op.oracle(x, sizes, { cuSeqlens }, {});
          return Object.keys(upstreams).reduce((sum, name) => sum + dot(outputs[name], upstreams[name]), 0);
        };
        const got = op.oracle(inputs, sizes, { cuSeqlens }, upstreams);
        for (const name of Object.keys(inputs)) {
          const slope = (i: number, h: number) => {
            const at = (delta: number) =>
              loss({ ...inputs, [name]: Float64Array.from(inputs[name], (x, n) => (n === i ? x + delta : x)) });
            return (at(h) - at(-h)) / (2 * h);
          };
          const numeric = Float64Array.from(inputs[name], (_x, i) => slope(i, 1e-5));
          expectClose(gradName(name), numeric, got[gradName(name)], 1e-7);
        }
      });
  });
});

describe.each(forms)('%s', (form) => {
  const sizes = { B: 2, T: 37, H: 2, K: 6, V: 5 };
  const TOLERANCE = 1e-5;

  test.each(gateStrengths)('kda is dplr with a = exp(g) k, b = -beta k and key beta k: %s gates', (gate) =>
    inScope(() => {
      const composed = ({ q, k, v, beta, g, initialState }: Tensors) => {
        const written = tf.mul(tf.expandDims(beta, 3), k);
        return dplr({ q, k: written, v, a: tf.mul(tf.exp(g), k), b: tf.neg(written), g, initialState }, { form });
      };
      const sample = drawSample(deltaOp('kda', { gate, beta: 'negative eigenvalues' }), sizes, { seed: 8 });
      expectOracle(sample, {}, TOLERANCE, composed);
    }),
  );

  test('gatedDeltaRule is kda with its gate in every channel', () =>
    inScope(() => {
      const composed = ({ g, ...x }: Tensors) => kda({ ...x, g: everyChannel(g, sizes.K) } as never, { form });
      expectOracle(drawSample(deltaOp('gatedDeltaRule'), sizes, { seed: 9 }), {}, TOLERANCE, composed);
    }));

  test('deltaRule is gatedDeltaRule with a gate of 0', () =>
    inScope(() => {
      const composed = (x: Tensors) => gatedDeltaRule({ ...x, g: tf.zeros(x.beta.shape) } as never, { form });
      expectOracle(drawSample(deltaOp('deltaRule'), sizes, { seed: 10 }), {}, TOLERANCE, composed);
    }));

  test('a worked example: a key seen again stands for the new value, by halves, and after a closed gate for nothing', () => {
    const [q, k] = [tf.ones([1, 4, 1, 1]), tf.ones([1, 4, 1, 1])];
    const v = tf.tensor4d([8, 2, 4, 6], [1, 4, 1, 1]);
    const beta = tf.tensor3d([1, 0.5, 0, 0.5], [1, 4, 1]);
    const g = tf.tensor4d([0, 0, -Math.LN2, Number.NEGATIVE_INFINITY], [1, 4, 1, 1]);
    const { o, finalState } = kda({ q, k, v, beta, g, initialState: tf.fill([1, 1, 1, 1], 100) }, { form, scale: 1 });
    expectClose('o', o, [8, 5, 2.5, 3], 1e-6);
    expectClose('finalState', finalState, [3], 1e-6);
  });

  test.each<[string, DeltaKind, Partial<Sizes>]>([
    ['one key throughout, written with 2', { keys: 'same', beta: 'all two', gate: 'mild' }, {}],
    ['one key throughout, written with 2, no decay', { keys: 'same', beta: 'all two' }, { T: 130 }],
    [
      'one key throughout, written with 0 to 2',
      { keys: 'same', beta: 'negative eigenvalues', gate: 'mild' },
      { T: 130 },
    ],
    ['nothing is written', { beta: 'none' }, {}],
  ])('%s', (_, kind, more) => {
    // Alike keys amplify the rounding of the plain chunk form's products: by the core that OpenBLAS chose, 0.9 to 1.5 of TOLERANCE (measured).
    for (const name of kind.gate ? names : (['deltaRule'] as const))
      inScope(() =>
        expectOracle(drawSample(deltaOp(name, kind), { ...sizes, ...more }, { seed: 3 }), { form }, 2 * TOLERANCE),
      );
  });

  test('the scale is K^-0.5 unless given', () => {
    const [q, v] = randomTensors(6, [1, 5, 1, 4], [1, 5, 1, 2]);
    const [k, beta] = [tf.tensor(drawUnitRows(7, 20, [4]), [1, 5, 1, 4]), tf.fill([1, 5, 1], 0.5)];
    const { o } = deltaRule({ q, k, v, beta }, { form });
    expectClose('o', o, deltaRule({ q: tf.mul(q, 0.5), k, v, beta }, { form, scale: 1 }).o, 1e-6);
    const x = { k, v, a: k, b: tf.mul(k, -0.5), g: tf.zeros([1, 5, 1, 4]) };
    expectClose('o', dplr({ q, ...x }, { form }).o, dplr({ q: tf.mul(q, 0.5), ...x }, { form, scale: 1 }).o, 1e-6);
  });
});

describe('the door', () => {
  const keys = [2, 6, 2, 4];
  const good = { q: keys, k: keys, v: [2, 6, 4, 3], beta: [2, 6, 4], g: [2, 6, 4, 4] };
  const one = { q: [1, 6, 2, 4], k: [1, 6, 2, 4], v: [1, 6, 4, 3], beta: [1, 6, 4], g: [1, 6, 4, 4] };
  const none = { ...good, q: [2, 0, 2, 4], k: [2, 0, 2, 4], v: [2, 0, 4, 3] };
  const cuSeqlens = (...n: number[]) => ({ cuSeqlens: Int32Array.from(n) });

  const cases: [what: string, shapes: Record<string, number[]>, options: DeltaOptions, message: string][] = [
    ['q of rank 3', { ...good, q: [6, 2, 4] }, {}, 'q must have shape [*,*,*,*], got [6,2,4]'],
    ['k too wide', { ...good, k: [2, 6, 2, 5] }, {}, 'k must have shape [2,6,2,4], got [2,6,2,5]'],
    ['v too short', { ...good, v: [2, 5, 4, 3] }, {}, 'v must have shape [2,6,*,*], got [2,5,4,3]'],
    ['heads', { ...good, v: [2, 6, 3, 3] }, {}, 'the heads of v must be a multiple of those of q and k (2), got 3'],
    ['beta', { ...good, beta: [2, 6, 2] }, {}, 'beta must have shape [2,6,4], got [2,6,2]'],
    ['g per head', { ...good, g: [2, 6, 4] }, {}, 'g must have shape [2,6,4,4], got [2,6,4]'],
    ['no tokens', none, {}, 'q and v must not be empty, got [2,0,2,4] and [2,0,4,3]'],
    ['state', { ...good, initialState: [2, 2, 4, 3] }, {}, 'initialState must have shape [2,4,4,3], got [2,2,4,3]'],
    ['chunkSize', good, { chunkSize: 0 }, 'chunkSize must be a positive integer, got 0'],
    ['scale', good, { scale: Number.NaN }, 'scale must be a finite number, got NaN'],
    ['form', good, { form: 'fast' as 'auto' }, "form must be one of 'auto', 'chunk', 'recurrent', got 'fast'"],
    ['offsets', one, cuSeqlens(0, 5), 'cuSeqlens must rise strictly from 0 to 6, got [0,5]'],
  ];
  test.each(cases)('%s', (_, shapes, options, message) => {
    const before = tf.memory().numTensors;
    inScope(() => expect(() => kda(zeros(shapes), options)).toThrow(new RangeError(`kda: ${message}`)));
    expect(tf.memory().numTensors).toBe(before);
  });

  test('gates: gatedDeltaRule takes one per head, and both need one', () =>
    inScope(() => {
      const { g, ...ungated } = zeros(good);
      expect(() => gatedDeltaRule({ ...ungated, g })).toThrow(
        'gatedDeltaRule: g must have shape [2,6,4], got [2,6,4,4]',
      );
      expect(() => gatedDeltaRule(ungated as never)).toThrow('gatedDeltaRule: g is required, got undefined');
      expect(() => kda(ungated as never)).toThrow('kda: g is required, got undefined');
    }));

  test('a missing input, a wrong dtype, and each input of dplr', () =>
    inScope(() => {
      const { v, ...rest } = zeros(good);
      expect(() => deltaRule(rest as never)).toThrow('deltaRule: v is required, got undefined; pass a float32 tensor');
      expect(() => deltaRule({ ...rest, v: tf.cast(v, 'int32') })).toThrow('deltaRule: v must be float32, got int32');
      const x = zeros({ q: keys, k: keys, v: [2, 6, 2, 3], a: keys, b: keys, g: keys });
      for (const name of ['k', 'v', 'a', 'b', 'g']) {
        expect(() => dplr({ ...x, [name]: undefined } as never)).toThrow(`dplr: ${name} is required`);
        expect(() => dplr({ ...x, [name]: tf.zeros([2, 6, 3, 4]) })).toThrow(`dplr: ${name} must have shape [2,6,2,`);
      }
      const wrong = { ...x, initialState: tf.zeros([2, 2, 3, 4]) };
      expect(() => dplr(wrong)).toThrow('dplr: initialState must have shape [2,2,4,3], got [2,2,3,4]');
    }));
});

test('the examples of the READMEs', () => {
  const [B, T, H, K, V] = [1, 128, 2, 16, 32];
  const [q, k] = [tf.randomNormal([B, T, H, K]), l2Norm({ x: tf.randomNormal([B, T, H, K]) })];
  const v = tf.randomNormal([B, T, H, V]);
  const beta = tf.randomUniform([B, T, H]);
  const g = tf.mul(-0.05, tf.randomUniform([B, T, H, K]));
  const { o, finalState } = kda({ q, k, v, beta, g });
  expect(o.shape).toEqual([B, T, H, V]);
  expect(kda({ q, k, v, beta, g, initialState: finalState }).finalState.shape).toEqual([B, H, K, V]);
  const b = tf.mul(-0.5, k);
  const general = dplr({ q, k, v, a: k, b, g });
  expect(general.o.shape).toEqual([B, T, H, V]);
  const next = dplr({ q, k, v, a: k, b, g, initialState: general.finalState });
  expect(next.finalState.shape).toEqual([B, H, K, V]);
});

const zeros = (shapes: Record<string, number[]>) =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, tf.zeros(shape)])) as never as Record<
    'q' | 'k' | 'v' | 'beta' | 'a' | 'b' | 'g',
    tf.Tensor
  >;

function everyChannel(g: tf.Tensor, K: number): tf.Tensor {
  return tf.mul(tf.expandDims(g, 3), tf.ones([K]));
}

function plain(tensors: Tensors): Arrays {
  return Object.fromEntries(Object.entries(tensors).map(([name, x]) => [name, Float64Array.from(values(x))]));
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a).reduce((sum, x, i) => sum + x * b[i], 0);
}
