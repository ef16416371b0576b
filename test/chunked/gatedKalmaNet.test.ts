/** Gated KalmaNet: the oracle itself, what the solve promises in float64 and keeps in float32, single cases worth naming, the door. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type GatedKalmaNetOptions, gatedKalmaNet, gla, l2Norm } from '../../src/chunked/index.js';
import { chebyshevBound, chebyshevSolve, frobenius, gatedKalmaNetOracle } from '../oracle/gatedKalmaNet.js';
import {
  conjugateGradients,
  gradientDescent,
  kalmanInverse,
  relativeResidual,
  ridgeMap,
} from '../oracle/ridgeSolvers.js';
import { drawKeys, kalmaNetOp } from '../support/gatedKalmaNetOp.js';
import {
  type Arrays,
  cutAt,
  drawSample,
  drawUnitRows,
  expectCausal,
  expectOracle,
  gradName,
  inScope,
  type MixingOp,
  type Tensors,
} from '../support/opProperties.js';
import { expectClose, normal, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'chunk', 'recurrent'] as const;
const keyKinds = Object.keys(drawKeys) as (keyof typeof drawKeys)[];

describe('the oracle', () => {
  const sizes = { B: 1, T: 6, H: 2, K: 3, V: 2 };
  const all = ['q', 'k', 'v', 'g', 'alpha', 'kk', 'kv'];
  // A gradient through the iteration is exact where H and its norm are fixed; the others become so as it converges.
  test.each([
    ['exact', { solver: 'exact' }, all, 1e-6],
    ['exact, kk without decay', { solver: 'exact', decayKk: false }, all, 1e-6],
    ['400 steps', { numIterations: 400 }, all, 1e-6],
    ['4 steps', { numIterations: 4 }, ['q', 'v', 'alpha', 'kv'], 1e-6],
    ['no step', { numIterations: 0 }, all, 1e-6],
  ] as const)(
    '%s: gradients equal finite differences, in one sequence and in documents',
    (_, solver, names, tolerance) => {
      const op = kalmaNetOp({ gate: 'strong', ...solver });
      for (const cuSeqlens of [undefined, Int32Array.of(0, 2, 3, 6)])
        inScope(() => {
          const sample = drawSample(op, sizes, { seed: 4, cuSeqlens });
          const [inputs, upstreams] = [plain(sample.inputs), plain(sample.upstreams)];
          const loss = (x: Arrays) => {
            const outputs = op.oracle(x, sizes, { cuSeqlens }, {});
            return Object.keys(upstreams).reduce((sum, name) => sum + dot(outputs[name], upstreams[name]), 0);
          };
          const got = op.oracle(inputs, sizes, { cuSeqlens }, upstreams);
          for (const name of names) {
            const at = (i: number, delta: number) =>
              loss({ ...inputs, [name]: Float64Array.from(inputs[name], (x, n) => (n === i ? x + delta : x)) });
            const h = 1e-6;
            const numeric = Float64Array.from(inputs[name], (_x, i) => (at(i, h) - at(i, -h)) / (2 * h));
            expectClose(gradName(name), numeric, got[gradName(name)], tolerance);
          }
        });
    },
  );

  test('alpha = 1 with the exact solver is the ridge regression of all values on all keys', () => {
    const cases = fc.record({
      ...{ T: fc.integer({ min: 1, max: 12 }), D: fc.integer({ min: 1, max: 6 }), V: fc.integer({ min: 1, max: 3 }) },
      ...{ keys: fc.constantFrom(...keyKinds), ridgeRatio: fc.constantFrom(0.02, 0.5), seed: fc.nat({ max: 1e6 }) },
    });
    fc.assert(
      fc.property(cases, ({ T, D, V, keys, ridgeRatio, seed }) => {
        const [q, v] = [normal(seed, T * D), normal(seed + 1, T * V)];
        const k = drawKeys[keys](seed + 2, T * D, [T, D]);
        const g = normal(seed + 3, T).map((x) => -Math.abs(x));
        const x = { q, k, v, g, alpha: new Float64Array(T).fill(1) };
        const { o } = gatedKalmaNetOracle(x, { B: 1, T, H: 1, K: D, V }, { solver: 'exact', ridgeRatio, scale: 1 });
        const age = (i: number) => g.subarray(i + 1).reduce((sum, y) => sum + y, 0); // of token i at the end
        const weights = Float64Array.from({ length: T }, (_, i) => Math.exp(age(i)));
        const { S, lambda } = ridgeMap(k, v, weights, D, ridgeRatio);
        const last = Float64Array.from({ length: V }, (_, j) =>
          dot(S.subarray(j * D, (j + 1) * D), q.subarray((T - 1) * D)),
        );
        expectClose('o', o.slice((T - 1) * V), last, 1e-9);
        const penalty = (map: Float64Array) => {
          const errors = Array.from(weights, (w, i) => {
            const miss = Array.from({ length: V }, (_, j) => {
              return dot(map.subarray(j * D, (j + 1) * D), k.subarray(i * D, (i + 1) * D)) - v[i * V + j];
            });
            return w * dot(miss, miss);
          });
          return lambda * dot(map, map) + errors.reduce((a, b) => a + b);
        };
        for (let i = 0; i < S.length; i++)
          for (const step of [-1e-3, 1e-3])
            expect(penalty(S.map((y, n) => (n === i ? y + step : y)))).toBeGreaterThan(penalty(S));
      }),
      { numRuns: 100 },
    );
  });
});

describe('the Chebyshev iteration', () => {
  /** Covariances of keys that are one, alike, few or many, with their norms, and a right side. */
  const systems = fc
    .record({
      ...{ D: fc.integer({ min: 1, max: 16 }), T: fc.integer({ min: 1, max: 60 }), seed: fc.nat({ max: 1e6 }) },
      ...{ keys: fc.constantFrom(...keyKinds), ridgeRatio: fc.constantFrom(0.005, 0.02, 0.1, 1) },
    })
    .map(({ D, T, seed, keys, ridgeRatio }) => {
      const k = drawKeys[keys](seed, T * D, [T, D]);
      return { H: covariance(k, D), b: Float64Array.from(normal(seed + 1, D)), ridgeRatio };
    });

  test('never leaves more than 1 / T_{R+1}(1 / rho), whatever the keys and the number of steps', () => {
    fc.assert(
      fc.property(systems, fc.nat({ max: 60 }), ({ H, b, ridgeRatio }, R) => {
        const f = frobenius(H);
        const left = relativeResidual(H, f, chebyshevSolve(H, f, b, ridgeRatio, R), b, ridgeRatio);
        expect(left).toBeLessThanOrEqual(chebyshevBound(ridgeRatio, R) * (1 + 1e-9) + 1e-12);
      }),
      { numRuns: 500 },
    );
  });

  test('the bound is met where a direction has no key; 3.2e-4 for 30 steps at r = 0.02', () => {
    expect(chebyshevBound(0.02, 30)).toBeCloseTo(3.2e-4, 5);
    for (const R of [0, 1, 2, 10, 20, 30]) {
      const [H, b] = [Float64Array.of(1, 0, 0, 0), Float64Array.of(0, 1)];
      const left = relativeResidual(H, 1, chebyshevSolve(H, 1, b, 0.02, R), b, 0.02);
      expect(left / chebyshevBound(0.02, R)).toBeCloseTo(1, 9);
    }
  });

  /** What float32 leaves when the iteration has long converged: 5e-5 measured over 10,000 systems with keys of all kinds, at r = 0.02. */
  const FLOOR = 1e-4;

  test('in float32 keeps to the bound and a floor, also after 200 steps', () => {
    fc.assert(
      fc.property(systems, fc.constantFrom(1, 10, 30, 60, 200), ({ H, b }, R) => {
        const [H32, b32] = [H.map(Math.fround), b.map(Math.fround)];
        const f = frobenius(H32);
        const x = chebyshevSolve(H32, Math.fround(f), b32, 0.02, R, Math.fround);
        expect(relativeResidual(H32, f, x, b32, 0.02)).toBeLessThanOrEqual(chebyshevBound(0.02, R) + FLOOR);
      }),
      { numRuns: 200 },
    );
  });

  test.each(forms)('%s: so does the op', (form) => {
    const cases = fc.record({
      ...{ T: fc.integer({ min: 1, max: 40 }), D: fc.integer({ min: 1, max: 16 }), kind: fc.constantFrom(...keyKinds) },
      ...{ R: fc.constantFrom(1, 2, 5, 10, 30, 60, 200), seed: fc.nat({ max: 1e6 }) },
    });
    fc.assert(
      fc.property(cases, ({ T, D, kind, R, seed }) =>
        inScope(() => {
          const [q, k] = [normal(seed, T * D), drawKeys[kind](seed + 1, T * D, [T, D])];
          const [x, keys] = [q, k].map((y) => tf.tensor(y, [1, T, 1, D]));
          const g = tf.fill([1, T, 1], -0.05);
          // Without values U stays the identity but for its decay, so that at alpha = 1 the outputs are the solutions.
          const state = { kk: tf.zeros([1, 1, D, D]), kv: tf.eye(D).reshape([1, 1, D, D]) };
          const inputs = { q: x, k: keys, v: tf.zerosLike(x), g, alpha: tf.onesLike(g), initialState: state };
          const { o } = gatedKalmaNet(inputs, { form, numIterations: R, scale: 1, chunkSize: 16 });
          const got = Float64Array.from(values(o), (y, i) => y * Math.exp(0.05 * (1 + Math.floor(i / D))));
          let H = new Float64Array(D * D);
          for (let t = 0; t < T; t++) {
            const row = (y: ArrayLike<number>) => Array.from({ length: D }, (_, i) => y[t * D + i]);
            const now = covariance(row(k), D);
            H = H.map((y, c) => Math.exp(Math.fround(-0.05)) * y + now[c]);
            const left = relativeResidual(H, frobenius(H), row(got), row(q), 0.02);
            expect(left).toBeLessThanOrEqual(chebyshevBound(0.02, R) + FLOOR);
          }
        }),
      ),
      { numRuns: 40 },
    );
  });

  // 200 keys around one direction, as a text that repeats itself gives: condition 51, one large eigenvalue and many small ones.
  const D = 16;
  const alike = Float64Array.from(drawKeys.alike(1, 200 * D, [200, D]));
  const H = covariance(alike, D).map(Math.fround);
  const b = Float64Array.from(drawUnitRows(2, D, [D]));
  const f = Math.fround(frobenius(H));
  const left = (x: Float64Array) => relativeResidual(H, f, x, b, 0.02);

  test('gradient descent with as many products is hundreds of times further away', () => {
    expect(left(chebyshevSolve(H, f, b, 0.02, 30, Math.fround))).toBeLessThan(3.3e-4);
    expect(left(gradientDescent(H, f, b, 0.02, 30, Math.fround))).toBeGreaterThan(0.25); // (50 / 52)^31 = 0.30
  });

  test('conjugate gradients are exact in fewer steps, and then divide 0 by 0 in float32', () => {
    expect(left(conjugateGradients(H, f, b, 0.02, 10, Math.fround))).toBeLessThan(3e-6);
    expect(conjugateGradients(H, f, b, 0.02, 30, Math.fround).every(Number.isNaN)).toBe(true);
    expect(left(conjugateGradients(H, f, b, 0.02, 30, (x) => x))).toBeLessThan(1e-14);
  });

  test('the recursion of the Kalman filter leaves float32 altogether where a direction goes unseen', () => {
    const [T, decay] = [900, 0.9];
    const keys = drawKeys.same(3, T * D, [T, D]);
    expect(kalmanInverse(keys, D, decay, 1, Math.fround).some((x) => !Number.isFinite(x))).toBe(true);
    const long = Float64Array.from({ length: D * D }, (_, c) => keys[Math.floor(c / D)] * keys[c % D]);
    const settled = long.map((x) => Math.fround(x / (1 - decay)));
    const norm = frobenius(settled);
    const x = chebyshevSolve(settled, Math.fround(norm), b, 0.02, 30, Math.fround);
    expect(relativeResidual(settled, norm, x, b, 0.02)).toBeLessThan(chebyshevBound(0.02, 30) + FLOOR);
  });

  /** Relative error of outputs and gradients over the bound of the residual; at most 1.6 measured. */
  const TRUNCATION = 3;

  test('its gradients are those of the exact solver but for the truncation, which falls as the bound does', () => {
    const sizes = { B: 1, T: 20, H: 2, K: 8, V: 5 };
    for (const keys of keyKinds)
      inScope(() => {
        const sample = drawSample(kalmaNetOp({ gate: 'mild', keys }), sizes, { seed: 6 });
        const run = (op: MixingOp) => op.oracle(plain(sample.inputs), sizes, {}, plain(sample.upstreams));
        const exact = run(kalmaNetOp({ solver: 'exact' }));
        for (const numIterations of [10, 20, 30, 60]) {
          const got = run(kalmaNetOp({ numIterations }));
          for (const name of ['o', ...Object.keys(sample.inputs).map(gradName)]) {
            const error = Math.hypot(...Array.from(got[name], (x, i) => x - exact[name][i])) / frobenius(exact[name]);
            expect(error, `${name} ${keys} ${numIterations}`).toBeLessThan(
              TRUNCATION * chebyshevBound(0.02, numIterations),
            );
          }
        }
      });
  });
});

describe.each(forms)('%s', (form) => {
  const sizes = { B: 2, T: 21, H: 2, K: 6, V: 5 };

  test('alpha = 0 and numIterations = 0 are gla with one gate per head', () =>
    inScope(() => {
      const { inputs, upstreams } = drawSample(kalmaNetOp(), sizes, { seed: 3 });
      const { q, k, v, g, alpha, kk, kv } = inputs;
      const upstream = [upstreams.o, upstreams.finalKv];
      const want = outputsAndGrads(
        ({ q, k, v, g, kv }: Tensors) => {
          const { o, finalState } = gla({ q, k, v, g, initialState: kv }, { form });
          return [o, finalState];
        },
        { q, k, v, g, kv },
        upstream,
      );
      for (const [strength, numIterations] of [[tf.zerosLike(alpha), 30] as const, [alpha, 0] as const]) {
        const got = outputsAndGrads(
          ({ q, k, v, g, kv }: Tensors) => {
            const state = { kk, kv };
            const x = { q, k, v, g, alpha: strength, initialState: state };
            const { o, finalState } = gatedKalmaNet(x, { form, numIterations });
            return [o, finalState.kv];
          },
          { q, k, v, g, kv },
          upstream,
        );
        got.outputs.forEach((x, i) => {
          expect(Array.from(values(x))).toEqual(Array.from(values(want.outputs[i])));
        });
        for (const name of ['q', 'k', 'v', 'g', 'kv'] as const)
          expectClose(`d${name}`, got.grads[name], want.grads[name], 1e-6);
      }
    }));

  test('without a solve kk is still carried, and alpha has a gradient of 0', () =>
    inScope(() => {
      const sample = drawSample(kalmaNetOp({ numIterations: 0 }), sizes, { seed: 5 });
      expectOracle(sample, { form, chunkSize: 8 }, 1e-5);
      expectOracle(sample, { form }, 1e-5, cutAt(sample, [4, 11], { form }));
    }));

  test.each(['chebyshev', 'exact'] as const)(
    '%s: where nothing was seen, lambda = r and everything is finite',
    (solver) =>
      inScope(() => {
        const op = kalmaNetOp({ solver, numIterations: 300 });
        const sample = drawSample(op, sizes, { seed: 7 });
        const silent = (x: tf.Tensor, tokens: number) => {
          const mask = tf.greaterEqual(tf.range(0, sizes.T), tokens).reshape([1, sizes.T, 1, 1]);
          return tf.mul(x, tf.cast(mask, 'float32'));
        };
        for (const [k, kk] of [
          [tf.zerosLike(sample.inputs.k), tf.zerosLike(sample.inputs.kk)],
          [silent(sample.inputs.k, 9), tf.zerosLike(sample.inputs.kk)],
        ])
          expectOracle({ ...sample, inputs: { ...sample.inputs, k, kk } }, { form, chunkSize: 8 }, 2e-4);
        const { q, v, g, kv } = sample.inputs;
        const state = { kk: tf.zerosLike(sample.inputs.kk), kv };
        const x = { q, k: tf.zerosLike(q), v, g: tf.zerosLike(g), alpha: tf.onesLike(g), initialState: state };
        const { o } = gatedKalmaNet(x, { form, solver, numIterations: 300 });
        const want = gla({ q: tf.mul(q, 50), k: x.k, v, g: x.g, initialState: kv }, { form: 'chunk' }).o;
        expectClose('o', o, want, 1e-5);
      }),
  );

  test('a worked example: one key, its value, and what is left of it after a closed gate', () =>
    inScope(() => {
      const [q, k] = [tf.ones([1, 3, 1, 1]), tf.ones([1, 3, 1, 1])];
      const v = tf.tensor4d([8, 4, 6], [1, 3, 1, 1]);
      const g = tf.tensor3d([0, -Math.LN2, Number.NEGATIVE_INFINITY], [1, 3, 1]);
      const options = { form, scale: 1, ridgeRatio: 0.25, solver: 'exact' } as const;
      const { o, finalState } = gatedKalmaNet({ q, k, v, g, alpha: tf.ones([1, 3, 1]) }, options);
      // H = 1, 1.5, 1 and U = 8, 8, 6: U / (1.25 H)
      expectClose('o', o, [6.4, 8 / 1.875, 4.8], 1e-6);
      expectClose('kk', finalState.kk, [1], 1e-6);
      expectClose('kv', finalState.kv, [6], 1e-6);
    }));

  test('of a kk that is not symmetric the symmetric part is taken', () =>
    inScope(() => {
      const sample = drawSample(kalmaNetOp({ gate: 'mild' }), sizes, { seed: 8 });
      const skew = randomTensors(9, sample.inputs.kk.shape)[0];
      const kk = tf.add(sample.inputs.kk, tf.sub(skew, tf.transpose(skew, [0, 1, 3, 2])));
      const run = (x: Tensors) => values(sample.op.run({ ...sample.inputs, ...x }, { form }).o);
      expectClose('o', run({ kk }), run({}), 1e-5);
    }));

  test('defaults: 30 steps, r = 0.02, lambda with its gradient, a kk that decays, the scale D^-0.5', () =>
    inScope(() => {
      const options = { numIterations: 30, ridgeRatio: 0.02, solver: 'chebyshev', lambdaGradient: true } as const;
      const given = kalmaNetOp({ gate: 'strong', ...options, decayKk: true, scale: sizes.K ** -0.5 });
      const { inputs } = drawSample(given, sizes, { seed: 2 });
      const results = [given, kalmaNetOp()].map((op) => {
        const { outputs, grads } = outputsAndGrads((x: Tensors) => [op.run(x, { form }).o], inputs, [
          tf.onesLike(inputs.v),
        ]);
        return [outputs[0], ...Object.values(grads)].map((x) => Array.from(values(x)));
      });
      expect(results[1]).toEqual(results[0]);
    }));
});

test('the properties can fail: a lambda or a gate that is off, a forgotten state, a look ahead are caught', () => {
  const sizes = { B: 1, T: 9, H: 1, K: 4, V: 3 };
  const right = kalmaNetOp({ gate: 'strong' });
  const off: MixingOp = { ...right, run: kalmaNetOp({ ridgeRatio: 0.021 }).run };
  const constant: MixingOp = { ...right, run: kalmaNetOp({ lambdaGradient: false }).run };
  const undecayed: MixingOp = { ...right, run: kalmaNetOp({ decayKk: false }).run };
  const forgetful: MixingOp = { ...right, run: ({ kk, kv, ...x }, options) => right.run(x, options) };
  const noncausal: MixingOp = {
    ...right,
    run: (x, options) => ({
      ...right.run(x, options),
      o: right.run({ ...x, q: x.q.reverse(1) }, options).o.reverse(1),
    }),
  };
  inScope(() => {
    const options = { form: 'chunk' };
    for (const wrong of [off, constant, undecayed])
      expect(() => expectOracle(drawSample(wrong, sizes, { seed: 3 }), options, 2e-4)).toThrow('worst error');
    const cut = drawSample(forgetful, sizes, { seed: 3, initial: false });
    expect(() => expectOracle(cut, options, 2e-4, cutAt(cut, [4], options))).toThrow('worst error');
    expect(() => expectCausal(drawSample(noncausal, sizes, { seed: 3 }), 4, options)).toThrow('before token 4');
  });
});

describe('the door', () => {
  const keys = [2, 6, 2, 4];
  const [kk, kv] = [
    [2, 2, 4, 4],
    [2, 2, 4, 3],
  ];
  const good = { q: keys, k: keys, v: [2, 6, 2, 3], g: [2, 6, 2], alpha: [2, 6, 2] };
  const one = { q: [1, 6, 2, 4], k: [1, 6, 2, 4], v: [1, 6, 2, 3], g: [1, 6, 2], alpha: [1, 6, 2] };
  const none = { ...good, q: [2, 0, 2, 4], k: [2, 0, 2, 4], v: [2, 0, 2, 3], g: [2, 0, 2], alpha: [2, 0, 2] };

  const cases: [what: string, shapes: Record<string, number[]>, options: GatedKalmaNetOptions, message: string][] = [
    ['q of rank 3', { ...good, q: [6, 2, 4] }, {}, 'q must have shape [*,*,*,*], got [6,2,4]'],
    ['k too wide', { ...good, k: [2, 6, 2, 5] }, {}, 'k must have shape [2,6,2,4], got [2,6,2,5]'],
    ['v with other heads', { ...good, v: [2, 6, 4, 3] }, {}, 'v must have shape [2,6,2,*], got [2,6,4,3]'],
    ['g per channel', { ...good, g: keys }, {}, 'g must have shape [2,6,2], got [2,6,2,4]'],
    ['alpha', { ...good, alpha: [2, 6] }, {}, 'alpha must have shape [2,6,2], got [2,6]'],
    ['no tokens', none, {}, 'q and v must not be empty, got [2,0,2,4] and [2,0,2,3]'],
    ['kk', { ...good, kk: kv, kv }, {}, 'initialState.kk must have shape [2,2,4,4], got [2,2,4,3]'],
    ['kv', { ...good, kk, kv: kk }, {}, 'initialState.kv must have shape [2,2,4,3], got [2,2,4,4]'],
    ['chunkSize', good, { chunkSize: 0 }, 'chunkSize must be a positive integer, got 0'],
    ['scale', good, { scale: Number.NaN }, 'scale must be a finite number, got NaN'],
    ['form', good, { form: 'fast' as 'auto' }, "form must be one of 'auto', 'chunk', 'recurrent', got 'fast'"],
    ['numIterations', good, { numIterations: -1 }, 'numIterations must be 0 or a positive integer, got -1'],
    ['half a step', good, { numIterations: 1.5 }, 'numIterations must be 0 or a positive integer, got 1.5'],
    ['no ridge', good, { ridgeRatio: 0 }, 'ridgeRatio must be a positive number, got 0'],
    ['solver', good, { solver: 'cg' as 'exact' }, "solver must be one of 'chebyshev', 'exact', got 'cg'"],
    ['offsets', one, { cuSeqlens: Int32Array.of(0, 5) }, 'cuSeqlens must rise strictly from 0 to 6, got [0,5]'],
  ];
  test.each(cases)('%s', (_, shapes, options, message) => {
    const before = tf.memory().numTensors;
    inScope(() =>
      expect(() => gatedKalmaNet(zeros(shapes), options)).toThrow(new RangeError(`gatedKalmaNet: ${message}`)),
    );
    expect(tf.memory().numTensors).toBe(before);
  });

  test('a missing input, half a state, a wrong dtype', () =>
    inScope(() => {
      const x = zeros({ ...good, kk, kv });
      for (const name of ['q', 'k', 'v', 'g', 'alpha'])
        expect(() => gatedKalmaNet({ ...x, [name]: undefined })).toThrow(
          new TypeError(`gatedKalmaNet: ${name} is required, got undefined; pass a float32 tensor`),
        );
      const half = { ...x, initialState: { kk: x.initialState?.kk } as never };
      expect(() => gatedKalmaNet(half)).toThrow('gatedKalmaNet: initialState.kv is required, got undefined');
      const whole = { ...x, alpha: tf.cast(x.alpha, 'int32') };
      expect(() => gatedKalmaNet(whole)).toThrow('gatedKalmaNet: alpha must be float32, got int32');
    }));
});

test('the example of the README', () =>
  inScope(() => {
    const [B, T, H, D, V] = [1, 128, 2, 16, 32];
    const [q, k] = [1, 2].map((seed) => l2Norm({ x: tf.randomNormal([B, T, H, D], 0, 1, 'float32', seed) }));
    const v = tf.randomNormal([B, T, H, V]);
    const g = tf.mul(-0.05, tf.randomUniform([B, T, H])); // log of the decay, <= 0
    const alpha = tf.randomUniform([B, T, H]); // 0: the query as it is, 1: the ridge regression
    const { o, finalState } = gatedKalmaNet({ q, k, v, g, alpha });
    const next = gatedKalmaNet({ q, k, v, g, alpha, initialState: finalState });
    expect(o.shape).toEqual([B, T, H, V]);
    expect([next.finalState.kk.shape, next.finalState.kv.shape]).toEqual([
      [B, H, D, D],
      [B, H, D, V],
    ]);
  }));

function zeros({ kk, kv, ...shapes }: Record<string, number[]>) {
  const x = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, tf.zeros(shape)]));
  const initialState = kk && { kk: tf.zeros(kk), kv: tf.zeros(kv) };
  return { ...(x as Record<'q' | 'k' | 'v' | 'g' | 'alpha', tf.Tensor>), ...(initialState && { initialState }) };
}

/** sum k k^T of keys [T, D]. */
function covariance(k: ArrayLike<number>, D: number): Float64Array {
  const H = new Float64Array(D * D);
  for (let t = 0; t < k.length / D; t++)
    H.forEach((x, c) => {
      H[c] = x + k[t * D + Math.floor(c / D)] * k[t * D + (c % D)];
    });
  return H;
}

function plain(tensors: Tensors): Arrays {
  return Object.fromEntries(Object.entries(tensors).map(([name, x]) => [name, Float64Array.from(values(x))]));
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a).reduce((sum, x, i) => sum + x * b[i], 0);
}
