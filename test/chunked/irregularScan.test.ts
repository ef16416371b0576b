/** The scan over irregular steps against the float64 discretisation and recurrence; over regular ones it is the scan itself. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  discretise,
  type IrregularScanInputs,
  type IrregularScanOptions,
  irregularScan,
  linearScan,
} from '../../src/chunked/index.js';
import { pairExp, pairTimes } from '../../src/chunked/pairs.js';
import { useBackend } from '../../src/index.js';
import { irregularScanOracle } from '../oracle/irregularScan.js';
import { testMixingOp } from '../support/mixingProperties.js';
import {
  anyDocuments,
  anySizes,
  type Draw,
  drawSample,
  drawUniform,
  expectOracle,
  inScope,
  type MixingOp,
} from '../support/opProperties.js';
import { expectClose, outputsAndGrads, random, randomTensors } from '../support/tensors.js';

/**
 * Of the largest value. The gradient on an interval sums terms of the size of the modes (here up to 300), made of states that float32 rounds.
 */
const TOLERANCE = 1e-5;

const forms = ['auto', 'chunk', 'scan', 'recurrent'];

interface Kind {
  rule: 'zoh' | 'bilinear';
  /**
   * Modes of dt |a| up to about 0.3; or to the frequencies of a large HiPPO matrix, where float32 rounds the plain forms' angles; or so slow
   * that their series count, over steps near 1, where these show.
   */
  modes: 'slow' | 'fast' | 'still';
  reverse?: boolean;
}

/** Decays and frequencies over some decades, some zero. */
const drawModes =
  (largest: number): Draw =>
  (seed, length) => {
    const next = random(seed);
    const size = () => (next() < 0.1 ? 0 : largest * 10 ** (-3 * next()));
    return Float32Array.from({ length }, (_, i) => (i % 2 ? (next() < 0.5 ? -1 : 1) * size() : -size()));
  };

/** A quarter of them 0, half of them 1. */
const drawIntervals: Draw = (seed, length) => {
  const next = random(seed);
  return Float32Array.from({ length }, () => [0, 1, 1, 3 * next()][Math.floor(4 * next())]);
};

function irregularOp({ rule, modes, reverse = false }: Kind): MixingOp {
  return {
    tokens: ({ B, T, H, K }) => ({ b: [B, T, H * K, 2], intervals: [B, T] }),
    shared: ({ H, K }) => ({ a: [H * K, 2], dt: [H * K] }),
    states: ({ H, K }, N) => ({ initialState: { shape: [N, H * K, 2], final: 'finalState' } }),
    outputs: ({ B, T, H, K }) => ({ o: [B, T, H * K, 2] }),
    draw: {
      a: drawModes({ slow: 3, fast: 300, still: 0.01 }[modes]),
      dt: modes === 'still' ? drawUniform(0.5, 1) : drawUniform(1e-3, 0.1),
      intervals: drawIntervals,
    },
    run: (inputs, options) =>
      irregularScan(inputs as unknown as IrregularScanInputs, { ...(options as IrregularScanOptions), rule, reverse }),
    oracle: (inputs, { B, T, H, K }, { cuSeqlens }, { o, finalState }) => ({
      ...irregularScanOracle(
        inputs as never,
        { B, T, P: H * K },
        { rule, reverse, cuSeqlens },
        { dO: o, dFinalState: finalState },
      ),
    }),
  };
}

const kinds = (...modes: Kind['modes'][]): fc.Arbitrary<Kind> =>
  fc.record({ rule: fc.constantFrom('zoh', 'bilinear'), modes: fc.constantFrom(...modes) });

const leaks = {
  zoh: irregularOp({ rule: 'zoh', modes: 'slow' }),
  bilinear: irregularOp({ rule: 'bilinear', modes: 'slow' }),
};

describe('slow and still modes, all forms', () =>
  testMixingOp({
    kinds: kinds('slow', 'still'),
    op: irregularOp,
    forms,
    tolerance: TOLERANCE,
    leaks,
    numRuns: { wasm: 12, cpu: 4 },
  }));

describe.each([false, true])('the kernel, fast and still modes, reverse %s', (reverse) => {
  beforeAll(() => useBackend('wasm'));
  const drawn = { kind: kinds('fast', 'still'), seed: fc.nat({ max: 1e6 }), initial: fc.boolean() };

  test('equals the recurrence in outputs and all gradients', () => {
    fc.assert(
      fc.property(fc.record({ ...drawn, sizes: anySizes() }), ({ kind, sizes, ...x }) =>
        inScope(() => expectOracle(drawSample(irregularOp({ ...kind, reverse }), sizes, x), {}, TOLERANCE)),
      ),
      { numRuns: 50 },
    );
  });

  test('packed documents equal each alone', () => {
    fc.assert(
      fc.property(
        fc.record({ ...drawn, sizes: anySizes({ B: 1 }), cuSeqlens: anyDocuments() }),
        ({ kind, sizes, ...x }) =>
          inScope(() => {
            const T = x.cuSeqlens[x.cuSeqlens.length - 1];
            expectOracle(drawSample(irregularOp({ ...kind, reverse }), { ...sizes, T }, x), {}, TOLERANCE);
          }),
      ),
      { numRuns: 25 },
    );
  });
});

test.each(['zoh', 'bilinear'] as const)('%s: intervals of 1 give the scan with shared factors, gradients too', (rule) =>
  inScope(() => {
    const [B, T, P] = [2, 23, 5];
    const [b, initialState, dO, dFinal] = randomTensors(1, [B, T, P, 2], [B, P, 2], [B, T, P, 2], [B, P, 2]);
    const a = tf.tensor(drawModes(30)(5, 2 * P, [P, 2]), [P, 2]);
    const dt = tf.tensor(drawUniform(1e-3, 0.1)(6, P, [P]));
    const inputs = { a, dt, b, initialState };
    const irregular = (x: typeof inputs) => irregularScan({ ...x, intervals: tf.ones([B, T]) }, { rule });
    const regular = (x: typeof inputs) => {
      const { zeta, psi } = discretise({ dt: x.dt, a: x.a }, { rule });
      const all = tf.mul(tf.ones([B, T, 1, 1]), psi);
      return linearScan({ a: pairExp(zeta), b: pairTimes(all, x.b), initialState: x.initialState });
    };
    const [got, want] = [irregular, regular].map((f) =>
      outputsAndGrads((x: typeof inputs) => Object.values(f(x)), inputs, [dO, dFinal]),
    );
    for (const [i, x] of got.outputs.entries()) expectClose(`output ${i}`, x, want.outputs[i], TOLERANCE);
    for (const [name, x] of Object.entries(got.grads)) expectClose(name, x, want.grads[name as 'a'], TOLERANCE);
  }),
);

test.each([
  ['a', { a: [4, 2] }, 'a must have shape [3,2], got [4,2]'],
  ['dt', { dt: [3, 1] }, 'dt must have shape [3], got [3,1]'],
  ['intervals', { intervals: [2, 4] }, 'intervals must have shape [2,5], got [2,4]'],
  ['state', { initialState: [3, 2] }, 'initialState must have shape [2,3,2], got [3,2]'],
  ['b', { b: [2, 5, 3] }, 'b must have shape [*,*,*,2], got [2,5,3]'],
])('errors name the op, what was expected and what came: %s', (_, wrong, message) =>
  inScope(() => {
    const shapes: Record<string, number[]> = { a: [3, 2], dt: [3], intervals: [2, 5], b: [2, 5, 3, 2], ...wrong };
    const inputs = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, tf.zeros(shape)]));
    expect(() => irregularScan(inputs as unknown as IrregularScanInputs)).toThrow(`irregularScan: ${message}`);
  }),
);
