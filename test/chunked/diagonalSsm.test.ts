/** Diagonal state spaces: the oracle itself, both directions, fast modes, options, and the door checks. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type DiagonalSsmForm,
  type DiagonalSsmInputs,
  type DiagonalSsmOptions,
  diagonalSsm,
} from '../../src/chunked/index.js';
import { diagonalSsmOracle, type SsmDims, type SsmOracleInputs, type SsmOracleOptions } from '../oracle/diagonalSsm.js';
import { inScope, type Tensors } from '../support/opProperties.js';
import { expectClose, normal, outputsAndGrads, random, values } from '../support/tensors.js';

const forms: DiagonalSsmForm[] = ['auto', 'conv', 'chunk', 'recurrent', 'scan'];

/** Inputs of the given sizes; dt log-uniform, a with Im up to `speed`. */
function draw({ B, T, H, M, R, dtPerMode }: SsmDims, seed: number, speed = 5, [low, high] = [0.01, 0.5]) {
  const next = random(seed + 3);
  const steps = Array.from({ length: dtPerMode ? H * M : H }, () => low * (high / low) ** next());
  const modes = Array.from({ length: 2 * R * M }, (_, i) => (i % 2 ? speed * (2 * next() - 1) : -0.2 - next()));
  return {
    u: normal(seed, B * T * H),
    dt: Float32Array.from(steps),
    a: Float32Array.from(modes),
    b: normal(seed + 1, 2 * R * M),
    c: normal(seed + 2, 2 * H * M),
    d: normal(seed + 4, H),
    cReverse: normal(seed + 5, 2 * H * M),
    initialState: normal(seed + 6, 2 * B * H * M),
  };
}

type Drawn = Partial<ReturnType<typeof draw>>;

const shapesOf = ({ B, T, H, M, R, dtPerMode }: SsmDims): Record<keyof Drawn, number[]> => ({
  u: [B, T, H],
  dt: dtPerMode ? [H, M] : [H],
  a: [R, M, 2],
  b: [R, M, 2],
  c: [H, M, 2],
  d: [H],
  cReverse: [H, M, 2],
  initialState: [B, H, M, 2],
});

const tensorsOf = (drawn: Drawn, dims: SsmDims): Tensors => {
  const shapes = shapesOf(dims);
  return Object.fromEntries(Object.entries(drawn).map(([name, x]) => [name, tf.tensor(x, shapes[name as 'u'])]));
};

/** Outputs and all gradients in `form` are the oracle's. */
function expectSame(drawn: Drawn, dims: SsmDims, options: DiagonalSsmOptions, tolerance = 1e-5): void {
  const { B, T, H, M } = dims;
  const gy = normal(99, B * T * H);
  const gFinal = drawn.cReverse ? undefined : normal(98, 2 * B * H * M);
  const want = diagonalSsmOracle(drawn as SsmOracleInputs, dims, options as SsmOracleOptions, {
    o: gy,
    finalState: gFinal,
  });
  const run = (x: Tensors) => {
    const { o, finalState } = diagonalSsm(x as unknown as DiagonalSsmInputs, options);
    return finalState ? [o, finalState] : [o];
  };
  const upstreams = [tf.tensor(gy, [B, T, H]), gFinal && tf.tensor(gFinal, [B, H, M, 2])];
  const { outputs, grads } = outputsAndGrads(run, tensorsOf(drawn, dims), upstreams);
  expectClose('o', outputs[0], want.o, tolerance);
  if (outputs[1]) expectClose('finalState', outputs[1], want.finalState, tolerance);
  for (const [name, gradient] of Object.entries(grads)) {
    const own = name.length > 2 ? `d${name[0].toUpperCase()}${name.slice(1)}` : `d${name}`;
    expectClose(
      own,
      gradient,
      want[own as 'du'],
      tolerance,
      Math.max(1, want[`terms.${own}` as 'terms.ddt']?.[0] ?? 1),
    );
  }
}

describe('the oracle', () => {
  const dims = { B: 2, T: 6, H: 4, M: 3, R: 2, dtPerMode: false };
  const cases: [string, SsmDims, SsmOracleOptions, boolean][] = [
    ['zero-order hold', dims, {}, false],
    ['zero-order hold of tiny steps', dims, { rate: 1e-4 }, false],
    [
      'bilinear, a step for each mode, no pairs',
      { ...dims, dtPerMode: true },
      { discretisation: 'bilinear', conjugate: false, rate: 1.7 },
      false,
    ],
    ['both ways', dims, {}, true],
    ['both ways, bilinear', dims, { discretisation: 'bilinear' }, true],
    ['packed', { ...dims, B: 1 }, { cuSeqlens: [0, 1, 6] }, false],
  ];
  test.each(cases)('gradients equal finite differences: %s', (_, sizes, options, both) => {
    const N = options.cuSeqlens ? options.cuSeqlens.length - 1 : sizes.B;
    const { cReverse, ...one } = draw({ ...sizes, B: Math.max(N, sizes.B) }, 5);
    const inputs = Object.fromEntries(
      Object.entries({ ...one, ...(both && { cReverse }) }).map(([name, x]) => [name, Float64Array.from(x)]),
    ) as unknown as SsmOracleInputs & Record<string, Float64Array>;
    inputs.u = (inputs.u as Float64Array).slice(0, sizes.B * sizes.T * sizes.H);
    const upstream = { o: normal(8, sizes.B * sizes.T * sizes.H), finalState: normal(9, 2 * N * sizes.H * sizes.M) };
    const loss = (x: SsmOracleInputs) => {
      const { o, finalState } = diagonalSsmOracle(x, sizes, options);
      return dot(o, upstream.o) + dot(finalState, upstream.finalState);
    };
    const got = diagonalSsmOracle(inputs, sizes, options, upstream);
    for (const name of Object.keys(inputs) as (keyof SsmOracleInputs)[]) {
      const grad = got[(name.length > 2 ? `d${name[0].toUpperCase()}${name.slice(1)}` : `d${name}`) as 'du'];
      const h = 1e-5;
      const moved = (i: number, delta: number) => {
        const x = Float64Array.from(inputs[name] as Float64Array);
        x[i] += delta;
        return loss({ ...inputs, [name]: x });
      };
      const numeric = Float64Array.from(grad, (_, i) => (moved(i, h) - moved(i, -h)) / (2 * h));
      expectClose(`d${name}`, numeric, grad, 1e-7);
    }
  });

  test('a worked example: a mode that halves, read whole', () => {
    const dims1 = { B: 1, T: 3, H: 1, M: 1, R: 1, dtPerMode: false };
    const inputs = {
      u: [1, 0, 4],
      dt: [1],
      a: [-Math.LN2, 0],
      b: [Math.LN2, 0],
      c: [1, 0],
      d: [10],
      initialState: [8, 0],
    };
    const { o, finalState } = diagonalSsmOracle(inputs, dims1, { conjugate: false });
    expectClose('o', o, [14.5, 2.25, 43.125], 1e-12); // psi b = 1/2
    expectClose('finalState', finalState, [3.125, 0], 1e-12);
  });
});

describe.each(forms)('%s', (form) => {
  test('both directions, for any sizes', () => {
    const any = fc.record({
      B: fc.integer({ min: 1, max: 2 }),
      T: fc.integer({ min: 1, max: 37 }),
      H: fc.constantFrom(1, 2, 4),
      M: fc.integer({ min: 1, max: 6 }),
      R: fc.constantFrom(1, 4),
      dtPerMode: fc.boolean(),
    });
    const rules = fc.constantFrom('zoh' as const, 'bilinear' as const);
    fc.assert(
      fc.property(
        any,
        rules,
        fc.nat(1e6),
        fc.constantFrom(1, 4, 16),
        ({ R, ...sizes }, discretisation, seed, chunkSize) =>
          inScope(() => {
            const dims = { ...sizes, R: sizes.H % R ? 1 : R };
            const { initialState: _, ...drawn } = draw(dims, seed);
            expectSame(drawn, dims, { form, discretisation, chunkSize });
          }),
      ),
      { numRuns: 15 },
    );
  });

  test('packed documents in both directions equal each alone', () =>
    inScope(() => {
      const dims = { B: 1, T: 23, H: 3, M: 2, R: 3, dtPerMode: false };
      const { initialState: _, ...drawn } = draw(dims, 3);
      const { u, ...weights } = tensorsOf(drawn, dims);
      const given = weights as unknown as DiagonalSsmInputs;
      const packed = diagonalSsm({ ...given, u }, { form, cuSeqlens: Int32Array.of(0, 1, 9, 23) });
      const alone = tf.split(u, [1, 8, 14], 1).map((document) => diagonalSsm({ ...given, u: document }, { form }).o);
      expectClose('o', packed.o, tf.concat(alone, 1), 1e-6);
      expect(packed.finalState).toBeUndefined();
    }));

  test('the options: no pairs, a band limit, another rate, no final state', () =>
    inScope(() => {
      const dims = { B: 2, T: 19, H: 4, M: 3, R: 2, dtPerMode: false };
      const { cReverse: _, ...drawn } = draw(dims, 4);
      for (const options of [{ conjugate: false }, { bandlimit: 0.2 }, { rate: 1.5 }, { rate: 0.5, bandlimit: 0.1 }])
        expectSame(drawn, dims, { form, ...options });
      const without = diagonalSsm(tensorsOf(drawn, dims) as unknown as DiagonalSsmInputs, {
        form,
        outputFinalState: false,
      });
      expect(Object.keys(without)).toEqual(['o']);
    }));

  test('a band limit closes the fast modes alone', () =>
    inScope(() => {
      const dims = { B: 1, T: 5, H: 1, M: 2, R: 1, dtPerMode: false };
      const inputs = { u: [1, 0, 0, 0, 0], dt: [1], a: [-0.1, 0.2, -0.1, 2], b: [1, 0, 1, 0], c: [1, 0, 1, 0] };
      const at = (bandlimit?: number) => {
        const tensors = tensorsOf(inputs as unknown as Drawn, dims) as unknown as DiagonalSsmInputs;
        return Array.from(values(diagonalSsm(tensors, { form, bandlimit }).o));
      };
      expect(at(2 / Math.PI + 1e-3)).toEqual(at()); // 2 rad per token is 0.318 turns, half of 0.637
      expect(at(2 / Math.PI - 1e-3)).not.toEqual(at());
      expect(at(0.01)).toEqual([0, 0, 0, 0, 0]);
    }));

  test('modes that turn up to 40 radians a token are as exact as slow ones', () =>
    inScope(() => {
      const dims = { B: 1, T: 60, H: 2, M: 4, R: 2, dtPerMode: false };
      const { cReverse: _, ...drawn } = draw(dims, 6, 400, [0.1, 0.1]);
      // zeta is rounded to 24 bits: 40 2^-24 radians a token, for the 10 tokens that a state of decay 0.1 or less lasts
      expectSame(drawn, dims, { form });
    }));

  test('linear in u and the state', () =>
    inScope(() => {
      const dims = { B: 1, T: 33, H: 2, M: 3, R: 2, dtPerMode: false };
      const { cReverse: _, ...drawn } = draw(dims, 7);
      const { u, initialState, ...weights } = tensorsOf(drawn, dims);
      const of = (x: tf.Tensor, x0: tf.Tensor) =>
        diagonalSsm(
          { ...(weights as unknown as DiagonalSsmInputs), u: x, initialState: x0 },
          { form, outputFinalState: true },
        );
      const [one, zero, more] = [of(u, initialState), of(tf.zerosLike(u), initialState), of(u.mul(3), initialState)];
      expectClose('o', tf.sub(more.o, zero.o), tf.mul(3, tf.sub(one.o, zero.o)), 1e-6);
      expectClose('state alone', of(u, tf.zerosLike(initialState)).o, tf.sub(one.o, zero.o), 1e-6);
    }));

  test('states stay bounded over 2,000 tokens, whatever the decaying modes', () =>
    inScope(() => {
      const T = form === 'auto' ? 2000 : 200;
      const dims = { B: 1, T, H: 2, M: 4, R: 2, dtPerMode: false };
      const { cReverse: _, initialState: _i, ...drawn } = draw(dims, 8, 500, [1e-3, 2]);
      const { u: _u, ...weights } = tensorsOf(drawn, dims);
      const ones = tf.ones([1, T, 2]);
      for (const discretisation of ['zoh', 'bilinear'] as const) {
        const { finalState } = diagonalSsm(
          { ...(weights as unknown as DiagonalSsmInputs), u: ones },
          { form, discretisation },
        );
        // |x| <= |psi b| / (1 - |exp(zeta)|), which is at most about |b| / |Re a| in both rules
        expect(Math.max(...Array.from(values(tf.abs(finalState as tf.Tensor))))).toBeLessThan(60);
      }
    }));
});

test('a slow mode keeps its rate of decay over 30,000 tokens', () =>
  inScope(() => {
    // exp(-1e-5) rounded to float32 would be off by 2e-3 of the rate, and the state by 6e-4 after 30,000 tokens
    const dims = { B: 1, T: 30000, H: 1, M: 1, R: 1, dtPerMode: false };
    const inputs = { u: new Float32Array(30000), dt: [1e-5], a: [-1, 0], b: [1, 0], c: [1, 0], initialState: [1, 0] };
    const x = tensorsOf(inputs as unknown as Drawn, dims) as unknown as DiagonalSsmInputs;
    const { finalState } = diagonalSsm(x);
    expectClose('finalState', finalState as tf.Tensor, [Math.exp(-Math.fround(1e-5) * 30000), 0], 2e-5);
    let state = x.initialState as tf.Tensor;
    for (let t = 0; t < 3000; t++)
      state = tf.tidy(() => diagonalSsm({ ...x, u: tf.zeros([1, 1, 1]), initialState: state }).finalState as tf.Tensor);
    expectClose('token by token', state, [Math.exp(-Math.fround(1e-5) * 3000), 0], 2e-6);
  }));

test('nothing is left behind by both directions and by a call without states', () => {
  const dims = { B: 2, T: 20, H: 3, M: 2, R: 1, dtPerMode: false };
  const { initialState: _, ...drawn } = draw(dims, 9);
  const inputs = tensorsOf(drawn, dims);
  const before = tf.memory().numTensors;
  for (const form of forms) {
    tf.tidy(() => {
      const run = (...xs: tf.Tensor[]) => {
        const named = Object.fromEntries(Object.keys(inputs).map((name, i) => [name, xs[i]]));
        return tf.sum(diagonalSsm(named as unknown as DiagonalSsmInputs, { form }).o) as tf.Scalar;
      };
      tf.grads(run)(Object.values(inputs));
    });
    tf.dispose(diagonalSsm(inputs as unknown as DiagonalSsmInputs, { form }).o);
    expect(tf.memory().numTensors, form).toBe(before);
  }
  tf.dispose(inputs);
});

describe('the door', () => {
  const good = { u: [2, 6, 4], dt: [4], a: [2, 3, 2], b: [2, 3, 2], c: [4, 3, 2] };
  const cases: [string, Record<string, number[]>, DiagonalSsmOptions, string][] = [
    ['u of rank 2', { ...good, u: [6, 4] }, {}, 'u must have shape [*,*,*], got [6,4]'],
    ['a real', { ...good, a: [2, 3] }, {}, 'a must have shape [*,*,2], got [2,3]'],
    ['no tokens', { ...good, u: [2, 0, 4] }, {}, 'u and a must not be empty, got [2,0,4] and [2,3,2]'],
    [
      'copies',
      { ...good, a: [3, 3, 2] },
      {},
      'the copies of a must divide the channels of u, got a [3,3,2] and u [2,6,4]',
    ],
    ['dt', { ...good, dt: [3] }, {}, 'dt must have shape [4], got [3]'],
    ['dt per mode', { ...good, dt: [4, 2] }, {}, 'dt must have shape [4,3], got [4,2]'],
    ['b', { ...good, b: [4, 3, 2] }, {}, 'b must have shape [2,3,2], got [4,3,2]'],
    ['c', { ...good, c: [2, 3, 2] }, {}, 'c must have shape [4,3,2], got [2,3,2]'],
    ['d', { ...good, d: [4, 1] }, {}, 'd must have shape [4], got [4,1]'],
    ['state', { ...good, initialState: [1, 4, 3, 2] }, {}, 'initialState must have shape [2,4,3,2], got [1,4,3,2]'],
    [
      'packed batch',
      good,
      { cuSeqlens: Int32Array.of(0, 6) },
      'cuSeqlens needs a batch of 1 (sequences packed along time), got a batch of 2',
    ],
    ['form', good, { form: 'parallel' as 'auto' }, `form must be one of ${formNames()}, got 'parallel'`],
    [
      'rule',
      good,
      { discretisation: 'euler' as 'zoh' },
      "discretisation must be one of 'zoh', 'bilinear', got 'euler'",
    ],
    ['chunkSize', good, { chunkSize: 0 }, 'chunkSize must be a positive integer, got 0'],
    ['rate', good, { rate: 0 }, 'rate must be a number > 0, got 0'],
    ['bandlimit', good, { bandlimit: Number.NaN }, 'bandlimit must be a number > 0, got NaN'],
    [
      'a state in, both ways',
      { ...good, cReverse: [4, 3, 2], initialState: [2, 4, 3, 2] },
      {},
      'with cReverse there are no states, since each output needs all tokens; leave out initialState',
    ],
    [
      'a state out, both ways',
      { ...good, cReverse: [4, 3, 2] },
      { outputFinalState: true },
      'with cReverse there are no states, since each output needs all tokens; leave out outputFinalState',
    ],
  ];
  test.each(cases)('%s', (_, shapes, options, message) => {
    const inputs = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, tf.zeros(shape)]));
    const before = tf.memory().numTensors;
    expect(() => diagonalSsm(inputs as never, options)).toThrow(new RangeError(`diagonalSsm: ${message}`));
    expect(tf.memory().numTensors).toBe(before);
  });

  test('a missing input and a wrong dtype', () => {
    const { u, dt, a, b, c } = Object.fromEntries(Object.entries(good).map(([name, shape]) => [name, tf.zeros(shape)]));
    expect(() => diagonalSsm({ u, dt, a, b } as never)).toThrow('diagonalSsm: c is required, got undefined');
    expect(() => diagonalSsm({ u: tf.cast(u, 'int32'), dt, a, b, c })).toThrow(
      'diagonalSsm: u must be float32, got int32',
    );
  });
});

function formNames(): string {
  return forms.map((form) => `'${form}'`).join(', ');
}

function dot(x: ArrayLike<number>, y: ArrayLike<number>): number {
  return Array.from(x).reduce((sum, value, i) => sum + value * y[i], 0);
}
