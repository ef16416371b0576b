import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type CausalConv1dInputs, type CausalConv1dOptions, causalConv1d } from '../../src/chunked/index.js';
import { causalConv1dOracle } from '../oracle/primitives.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
type Inputs = CausalConv1dInputs & Record<string, tf.Tensor>;

interface Case {
  B: number;
  T: number;
  D: number;
  W: number;
  bias: boolean;
  state: boolean;
  activation: 'silu' | null;
  seed: number;
}

const cases = (maxBatch: number): fc.Arbitrary<Case> =>
  fc.record({
    B: fc.integer({ min: 1, max: maxBatch }),
    T: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 6, max: 70 })), // 1, below W, and over two tiles of 32
    D: fc.integer({ min: 1, max: 11 }),
    W: fc.oneof(fc.constant(4), fc.integer({ min: 1, max: 6 })),
    bias: fc.boolean(),
    state: fc.boolean(),
    activation: fc.constantFrom('silu', null),
    seed: fc.integer({ min: 0, max: 1e6 }),
  });

/** Inputs of N sequences in a batch of B, and upstreams on o and finalState. */
function draw({ B, T, D, W, bias, state, seed }: Case, N = B) {
  const [x, weight, b, s, dy, dFinal] = randomTensors(seed, [B, T, D], [D, W], [D], [N, D, W], [B, T, D], [N, D, W]);
  const inputs = { x, weight, ...(bias && { bias: b }), ...(state && { initialState: s }) } as Inputs;
  return { inputs, upstreams: [dy, dFinal] as [tf.Tensor, tf.Tensor] };
}

function run(inputs: Inputs, upstreams: tf.Tensor[], options: CausalConv1dOptions) {
  const op = (all: Inputs) => {
    const { o, finalState } = causalConv1d(all, options);
    return [o, finalState];
  };
  const { outputs, grads } = outputsAndGrads(op, inputs, upstreams);
  return { o: outputs[0], finalState: outputs[1], ...prefixed(grads) };
}

/** { x } -> { dX } */
const prefixed = (grads: Record<string, tf.Tensor>) =>
  Object.fromEntries(Object.entries(grads).map(([name, t]) => [`d${name[0].toUpperCase()}${name.slice(1)}`, t]));

/** The oracle over every sequence: outputs and per-sequence gradients joined, those of the shared weights summed. */
function oracle({ D, W, activation }: Case, inputs: Inputs, [dy, dFinalState]: tf.Tensor[], lengths: number[]) {
  const piece = (t: tf.Tensor, from: number, size: number) => Array.from(values(t)).slice(from, from + size);
  const starts = lengths.map((_, n) => lengths.slice(0, n).reduce((a, b) => a + b, 0));
  const all = lengths.map((T, n) =>
    causalConv1dOracle(
      {
        x: piece(inputs.x, starts[n] * D, T * D),
        weight: values(inputs.weight),
        bias: inputs.bias && values(inputs.bias),
        initialState: inputs.initialState && piece(inputs.initialState, n * D * W, D * W),
      },
      { T, D, W, activation: activation ?? 'none' },
      { dy: piece(dy, starts[n] * D, T * D), dFinalState: piece(dFinalState, n * D * W, D * W) },
    ),
  );
  const joined = (pieces: Float64Array[]) => pieces.flatMap((p) => Array.from(p));
  const summed = (pieces: Float64Array[]) => pieces[0].map((_, i) => pieces.reduce((sum, p) => sum + p[i], 0));
  return {
    o: joined(all.map((r) => r.o)),
    finalState: joined(all.map((r) => r.finalState)),
    dX: joined(all.map((r) => r.dx)),
    dInitialState: joined(all.map((r) => r.dInitialState)),
    dWeight: summed(all.map((r) => r.dWeight)),
    dBias: summed(all.map((r) => r.dBias)),
  } as Record<string, ArrayLike<number>>;
}

function expectAll(got: Record<string, tf.Tensor>, want: Record<string, ArrayLike<number>>, tolerance = 2e-6) {
  for (const [name, tensor] of Object.entries(got)) expectClose(name, tensor, want[name], tolerance);
}

describe.each(forms)('causalConv1d, %s form', (form) => {
  test('equals the oracle in outputs, final state and every gradient', () => {
    fc.assert(
      fc.property(cases(3), (c) => {
        tf.tidy(() => {
          const { inputs, upstreams } = draw(c);
          const want = oracle(c, inputs, upstreams, Array(c.B).fill(c.T));
          expectAll(run(inputs, upstreams, { activation: c.activation, form }), want);
        });
      }),
      { numRuns: 60 },
    );
  });

  test('packed documents equal each document alone', () => {
    const lengths = fc.array(fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 5, max: 40 })), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(cases(1), lengths, (c, parts) => {
        const T = parts.reduce((a, b) => a + b);
        const cuSeqlens = Int32Array.from([0, ...parts.map((_, n) => parts.slice(0, n + 1).reduce((a, b) => a + b))]);
        tf.tidy(() => {
          const { inputs, upstreams } = draw({ ...c, T }, parts.length);
          const want = oracle(c, inputs, upstreams, parts);
          expectAll(run(inputs, upstreams, { activation: c.activation, cuSeqlens, form }), want);
        });
      }),
      { numRuns: 30 },
    );
  });

  test('a cut with the state carried over equals the whole, token by token too', () => {
    fc.assert(
      fc.property(cases(2), fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 2, maxLength: 6 }), (c, parts) => {
        const T = parts.reduce((a, b) => a + b);
        tf.tidy(() => {
          const { inputs, upstreams } = draw({ ...c, T });
          const options = { activation: c.activation, form };
          const inPieces = (all: Inputs) => {
            let state = all.initialState;
            const pieces = tf.split(all.x, parts, 1).map((x) => {
              const { o, finalState } = causalConv1d({ ...all, x, initialState: state }, options);
              state = finalState;
              return o;
            });
            return [tf.concat(pieces, 1), state as tf.Tensor];
          };
          const { outputs, grads } = outputsAndGrads(inPieces, inputs, upstreams);
          const want = oracle(c, inputs, upstreams, Array(c.B).fill(T));
          expectAll({ o: outputs[0], finalState: outputs[1], ...prefixed(grads) }, want);
        });
      }),
      { numRuns: 20 },
    );
  });

  test('is causal, and NaN reaches the W tokens that see it and no other', () => {
    tf.tidy(() => {
      const [T, D, W, bad] = [9, 5, 4, 3];
      const { inputs } = draw({ B: 1, T, D, W, bias: true, state: true, activation: 'silu', seed: 11 });
      const row = tf
        .oneHot(tf.tensor1d([bad], 'int32'), T)
        .reshape([1, T, 1])
        .toBool();
      const x = tf.where(tf.tile(row, [1, 1, D]), Number.NaN, inputs.x);
      const { o } = causalConv1d({ ...inputs, x }, { form });
      const hit = Array.from({ length: T * D }, (_, i) => Math.floor(i / D) >= bad && Math.floor(i / D) < bad + W);
      expect(Array.from(values(o), Number.isNaN)).toEqual(hit);
    });
  });

  test('saturates without NaN for inputs of 1e4', () => {
    tf.tidy(() => {
      const c: Case = { B: 1, T: 8, D: 6, W: 4, bias: true, state: true, activation: 'silu', seed: 12 };
      const { inputs, upstreams } = draw(c);
      const big = { ...inputs, x: tf.mul(inputs.x, 1e4) };
      expectAll(run(big, upstreams, { form }), oracle(c, big, upstreams, [c.T]));
    });
  });

  test('leaves no tensor behind', () => {
    const { inputs, upstreams } = draw({
      B: 2,
      T: 5,
      D: 3,
      W: 4,
      bias: true,
      state: true,
      activation: 'silu',
      seed: 13,
    });
    const before = tf.memory().numTensors;
    tf.tidy(() => void run(inputs, upstreams, { form }));
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([Object.values(inputs), upstreams]);
  });
});

test('the weight gradient over 30,000 tokens keeps float32 accuracy', () => {
  tf.tidy(() => {
    const c: Case = { B: 1, T: 30_000, D: 5, W: 4, bias: true, state: false, activation: 'silu', seed: 14 };
    const { inputs, upstreams } = draw(c);
    // Terms of one sign, so that the sum grows past what a float32 running sum can add to.
    const positive = { ...inputs, x: tf.add(tf.abs(inputs.x), 0.5), weight: tf.abs(inputs.weight) };
    const ones = [tf.onesLike(upstreams[0]), upstreams[1]];
    expectAll(run(positive, ones, {}), oracle(c, positive, ones, [c.T]), 5e-7);
  });
});

test('errors name the op, what was expected and what came', () => {
  const [x, weight] = [tf.ones([2, 3, 4]), tf.ones([4, 3])];
  const fail = (inputs: Partial<CausalConv1dInputs>, options: CausalConv1dOptions, message: string) =>
    expect(() => causalConv1d({ x, weight, ...inputs }, options)).toThrow(message);
  fail({ x: tf.ones([3, 4]) }, {}, 'causalConv1d: x must have shape [*,*,*], got [3,4]');
  fail({ weight: tf.ones([5, 3]) }, {}, 'causalConv1d: weight must have shape [4,*], got [5,3]');
  fail({ bias: tf.ones([3]) }, {}, 'causalConv1d: bias must have shape [4], got [3]');
  fail({ initialState: tf.ones([2, 4, 2]) }, {}, 'causalConv1d: initialState must have shape [2,4,3], got [2,4,2]');
  fail({ weight: tf.ones([4, 3], 'int32') }, {}, 'causalConv1d: weight must be float32, got int32');
  fail({ x: tf.ones([2, 0, 4]) }, {}, 'causalConv1d: needs a token and a tap, got T = 0 and W = 3');
  fail({}, { cuSeqlens: Int32Array.of(0, 3) }, 'causalConv1d: cuSeqlens needs a batch of 1');
  fail({}, { activation: 'relu' as 'silu' }, "causalConv1d: activation must be one of 'silu', got 'relu'");
  fail({}, { form: 'chunk' as 'plain' }, "causalConv1d: form must be one of 'auto', 'plain', got 'chunk'");
});
