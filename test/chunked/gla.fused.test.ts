/** The fused kernel against the float64 recurrence: outputs, final state and all five gradients. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fusedGla } from '../../src/chunked/gla/fused.js';
import { glaOracle } from '../oracle/gla.js';
import { expectClose, normal, outputsAndGrads, random, values } from '../support/tensors.js';

/** Worst error of float32 kernels with sums of up to a few hundred terms, relative to the largest value; measured below 1e-6. */
const TOLERANCE = 3e-6;

const GATES = ['mild', 'near one', 'strong', 'huge', 'forget', 'mixed', 'all forget'] as const;
type Gate = (typeof GATES)[number];

interface Case {
  B: number;
  T: number;
  H: number;
  K: number;
  V: number;
  gate: Gate;
  perHead: boolean;
  withState: boolean;
  seed: number;
  /** Where packed documents end, as fractions of T; needs B = 1. */
  cuts?: number[];
}

type Inputs = { q: tf.Tensor; k: tf.Tensor; v: tf.Tensor; g: tf.Tensor; initialState?: tf.Tensor };

/** One log decay. `u` is uniform in [0, 1), `x` normal. */
function gateValue(gate: Gate, u: number, x: number): number {
  const mild = -Math.abs(x) / 16;
  if (gate === 'near one') return -1e-5 * u;
  if (gate === 'strong') return -50 * u;
  if (gate === 'huge') return u < 0.3 ? -1e3 : mild;
  if (gate === 'forget') return u < 0.2 ? Number.NEGATIVE_INFINITY : mild;
  if (gate === 'all forget') return Number.NEGATIVE_INFINITY;
  if (gate === 'mixed')
    return [Number.NEGATIVE_INFINITY, -1e3, -120, -88, -87, -50, -5, 0, mild, mild, mild, mild][Math.floor(u * 12)];
  return mild;
}

function makeInputs({ B, T, H, K, V, gate, perHead, withState, seed }: Case, N: number): Inputs {
  const make = (salt: number, shape: number[]) => tf.tensor(normal(seed * 10 + salt, sizeOf(shape)), shape, 'float32');
  const gateShape = perHead ? [B, T, H] : [B, T, H, K];
  const uniform = random(seed);
  const g = normal(seed * 10 + 3, sizeOf(gateShape)).map((x) => gateValue(gate, uniform(), x));
  return {
    q: make(0, [B, T, H, K]),
    k: make(1, [B, T, H, K]),
    v: make(2, [B, T, H, V]),
    g: tf.tensor(g, gateShape, 'float32'),
    ...(withState && { initialState: make(4, [N, H, K, V]) }),
  };
}

const sizeOf = tf.util.sizeFromShape;

function offsetsOf({ T, cuts }: Case): Int32Array | undefined {
  if (!cuts) return undefined;
  const inner = cuts.map((c) => Math.round(c * T)).filter((c) => c > 0 && c < T);
  return Int32Array.from([...new Set([0, ...inner, T])].sort((a, b) => a - b));
}

function checkAgainstOracle(c: Case): void {
  tf.tidy(() => {
    const cuSeqlens = offsetsOf(c);
    const N = cuSeqlens ? cuSeqlens.length - 1 : c.B;
    const inputs = makeInputs(c, N);
    const dO = tf.tensor(normal(c.seed * 10 + 5, c.B * c.T * c.H * c.V), [c.B, c.T, c.H, c.V]);
    const dFinalState = tf.tensor(normal(c.seed * 10 + 6, N * c.H * c.K * c.V), [N, c.H, c.K, c.V]);
    const scale = 0.7 * c.K ** -0.5;
    const { outputs, grads } = outputsAndGrads((x) => Object.values(fusedGla(x, { scale, cuSeqlens })), inputs, [
      dO,
      dFinalState,
    ]);
    const { initialState } = inputs;
    const want = glaOracle(
      {
        q: values(inputs.q),
        k: values(inputs.k),
        v: values(inputs.v),
        g: values(inputs.g),
        initialState: initialState && values(initialState),
      },
      c,
      { scale, cuSeqlens },
      { dO: values(dO), dFinalState: values(dFinalState) },
    );
    expectClose('o', outputs[0], want.o, TOLERANCE);
    expectClose('finalState', outputs[1], want.finalState, TOLERANCE);
    expectClose('dq', grads.q, want.dq, TOLERANCE);
    expectClose('dk', grads.k, want.dk, TOLERANCE);
    expectClose('dv', grads.v, want.dv, TOLERANCE);
    expectClose('dg', grads.g, want.dg, TOLERANCE, gateTerms(inputs, want));
    if (grads.initialState) expectClose('dInitialState', grads.initialState, want.dInitialState, TOLERANCE);
    const [g, dg] = [values(inputs.g), values(grads.g)];
    for (let i = 0; i < g.length; i++)
      if (g[i] === Number.NEGATIVE_INFINITY) expect(dg[i] === 0, `dg[${i}] where g = -Infinity: ${dg[i]}`).toBe(true);
  });
}

/** The largest of the terms q * dq and k * dk, of which dg is a running sum where most cancel (README, section 7). */
function gateTerms({ q, k }: Inputs, { dq, dk }: { dq: Float64Array; dk: Float64Array }): number {
  const largest = (x: tf.Tensor, dx: Float64Array) => {
    const xs = values(x);
    return dx.reduce((most, d, i) => Math.max(most, Math.abs(xs[i] * d)), 0);
  };
  return Math.max(1, largest(q, dq), largest(k, dk));
}

const shapes = {
  H: fc.integer({ min: 1, max: 3 }),
  K: fc.integer({ min: 1, max: 20 }),
  V: fc.integer({ min: 1, max: 20 }),
  gate: fc.constantFrom(...GATES),
  perHead: fc.boolean(),
  withState: fc.boolean(),
  seed: fc.integer({ min: 1, max: 1e6 }),
};

describe('fusedGla equals the oracle in outputs, final state and gradients', () => {
  test('for any shape and gate', () => {
    const cases = fc.record({ ...shapes, B: fc.integer({ min: 1, max: 2 }), T: fc.integer({ min: 1, max: 70 }) });
    fc.assert(
      fc.property(cases, (c) => checkAgainstOracle(c)),
      { numRuns: 120 },
    );
  });

  test('for packed documents, some of one token', () => {
    const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 6 });
    const cases = fc.record({ ...shapes, B: fc.constant(1), T: fc.integer({ min: 1, max: 60 }), cuts });
    fc.assert(
      fc.property(cases, (c) => checkAgainstOracle(c)),
      { numRuns: 60 },
    );
  });

  test.each(GATES.flatMap((gate) => [false, true].map((perHead) => ({ gate, perHead }))))(
    'at full width, $gate gates, per head: $perHead',
    ({ gate, perHead }) =>
      checkAgainstOracle({ B: 1, T: 131, H: 2, K: 64, V: 64, gate, perHead, withState: true, seed: 5 }),
  );

  test('over 2000 tokens, where decays near one add up', () =>
    checkAgainstOracle({
      B: 1,
      T: 2000,
      H: 1,
      K: 8,
      V: 8,
      gate: 'near one',
      perHead: false,
      withState: true,
      seed: 9,
    }));

  test('over several segments of 256 tokens, at their borders and with documents that end anywhere', () => {
    const T = fc.oneof(fc.constantFrom(255, 256, 257, 512, 513), fc.integer({ min: 250, max: 900 }));
    const cuts = fc.option(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 }), { nil: undefined });
    const lengths = fc.record({ ...shapes, B: fc.constant(1), T, cuts });
    fc.assert(
      fc.property(lengths, (c) => checkAgainstOracle(c)),
      { numRuns: 20 },
    );
  });
});
