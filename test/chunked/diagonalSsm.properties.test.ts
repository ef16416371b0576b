/** Diagonal state spaces for random sizes, chunk sizes, modes, cuts and packings, in every form, against the float64 recurrence. */
import type * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type DiagonalSsmInputs, type DiagonalSsmOptions, diagonalSsm } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { diagonalSsmOracle, type SsmOracleInputs } from '../oracle/diagonalSsm.js';
import { testMixingOp } from '../support/mixingProperties.js';
import {
  anyDocuments,
  anySizes,
  cutAt,
  type Draw,
  drawSample,
  drawUniform,
  expectNoLeak,
  expectOracle,
  inScope,
  type MixingOp,
  type Tensors,
} from '../support/opProperties.js';
import { expectClose, outputsAndGrads, random, values } from '../support/tensors.js';

const TOLERANCE = 1e-5;

/** Steps and modes: `tiny` steps, where 1 - exp(z) would cancel; `hard`: states gone after a token; `still`: modes that do not turn. */
const speeds = ['mild', 'tiny', 'hard', 'still'] as const;
type Speed = (typeof speeds)[number];

interface Kind {
  discretisation: 'zoh' | 'bilinear';
  speed: Speed;
  dtPerMode: boolean;
  oneCopy: boolean;
  conjugate: boolean;
  skip: boolean;
}

const kinds: fc.Arbitrary<Kind> = fc.record({
  discretisation: fc.constantFrom('zoh', 'bilinear'),
  speed: fc.constantFrom(...speeds),
  dtPerMode: fc.boolean(),
  oneCopy: fc.boolean(),
  conjugate: fc.boolean(),
  skip: fc.boolean(),
});

const STEPS: Record<Speed, [number, number]> = {
  mild: [0.01, 0.5],
  tiny: [1e-5, 1e-4],
  hard: [20, 60],
  still: [0.01, 0.5],
};

/** Between dt's limits, evenly in the logarithm. */
function drawSteps(speed: Speed): Draw {
  const [low, high] = STEPS[speed].map(Math.log);
  return (seed, length) => drawUniform(low, high)(seed, length, []).map(Math.exp);
}

/** -a + i w, a from 0.2 to 1.5, w from -5 to 5. */
function drawModes(speed: Speed): Draw {
  return (seed, length) => {
    const next = random(seed + 11);
    const part = (i: number) => (i % 2 ? (speed === 'still' ? 0 : 10 * next() - 5) : -0.2 - 1.3 * next());
    return Float32Array.from({ length }, (_, i) => part(i));
  };
}

function ssmOp({ discretisation, speed, dtPerMode, oneCopy, conjugate, skip }: Kind): MixingOp {
  const copies = (H: number) => (oneCopy ? 1 : H);
  return {
    tokens: ({ B, T, H }) => ({ u: [B, T, H] }),
    shared: ({ H, K: M }) => ({
      dt: dtPerMode ? [H, M] : [H],
      a: [copies(H), M, 2],
      b: [copies(H), M, 2],
      c: [H, M, 2],
      ...(skip && { d: [H] }),
    }),
    states: ({ H, K: M }, N) => ({ initialState: { shape: [N, H, M, 2], final: 'finalState' } }),
    outputs: ({ B, T, H }) => ({ o: [B, T, H] }),
    draw: { dt: drawSteps(speed), a: drawModes(speed) },
    run: (inputs, options) => {
      const all = { discretisation, conjugate, ...(options as DiagonalSsmOptions) };
      return diagonalSsm(inputs as unknown as DiagonalSsmInputs, all) as unknown as tf.NamedTensorMap;
    },
    oracle: (inputs, { B, T, H, K: M }, { cuSeqlens }, upstream) => {
      const dims = { B, T, H, M, R: copies(H), dtPerMode };
      const options = { discretisation, conjugate, cuSeqlens };
      const { ddt: dDt, ...all } = diagonalSsmOracle(inputs as unknown as SsmOracleInputs, dims, options, upstream);
      return { ...all, dDt, 'terms.dDt': all['terms.ddt'] };
    },
  };
}

const plain: Kind = {
  discretisation: 'zoh',
  speed: 'mild',
  dtPerMode: false,
  oneCopy: false,
  conjugate: true,
  skip: true,
};

testMixingOp({
  kinds,
  op: ssmOp,
  forms: ['auto', 'chunk', 'recurrent', 'scan'],
  tolerance: TOLERANCE,
  limits: { H: 11 },
  leaks: { 'a step for each channel': ssmOp(plain), 'a step for each mode': ssmOp({ ...plain, dtPerMode: true }) },
});

/** By FFT, causal but for rounding. */
describe.each(['wasm', 'cpu'] as const)('%s: conv', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));
  const drawn = { kind: kinds, seed: fc.nat({ max: 1e6 }), initial: fc.boolean() };
  const options = { form: 'conv' };
  const numRuns = { wasm: 20, cpu: 6 }[backend];

  test('equals the recurrence in outputs and all gradients', () => {
    fc.assert(
      fc.property(fc.record({ ...drawn, sizes: anySizes({ H: 11 }) }), ({ kind, sizes, ...x }) =>
        inScope(() => expectOracle(drawSample(ssmOp(kind), sizes, x), options, TOLERANCE)),
      ),
      { numRuns },
    );
  });

  test('cut anywhere and carried over, also through the gradients', () => {
    const cuts = fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(fc.record({ ...drawn, sizes: anySizes({ H: 11 }), cuts }), ({ kind, sizes, ...x }) =>
        inScope(() => {
          const sample = drawSample(ssmOp(kind), sizes, x);
          expectOracle(sample, options, TOLERANCE, cutAt(sample, x.cuts, options));
        }),
      ),
      { numRuns },
    );
  });

  test('packed documents equal each document alone', () => {
    const packed = { ...drawn, sizes: anySizes({ H: 11, B: 1 }), cuSeqlens: anyDocuments() };
    fc.assert(
      fc.property(fc.record(packed), ({ kind, ...x }) =>
        inScope(() => {
          const sizes = { ...x.sizes, T: x.cuSeqlens[x.cuSeqlens.length - 1] };
          expectOracle(drawSample(ssmOp(kind), sizes, x), options, TOLERANCE);
        }),
      ),
      { numRuns },
    );
  });

  test('leaves no tensor behind', () =>
    inScope(() => {
      const sizes = { B: 1, T: 37, H: 2, K: 5, V: 3 };
      expectNoLeak(drawSample(ssmOp(plain), sizes, { seed: 1 }), options);
    }));
});

test('long inputs without states go by FFT, and agree with the state form', () =>
  inScope(() => {
    const op = ssmOp(plain);
    const { inputs, upstreams } = drawSample(op, { B: 2, T: 700, H: 3, K: 8, V: 1 }, { seed: 5, initial: false });
    const run = (x: Tensors, outputFinalState: boolean) => [
      diagonalSsm(x as unknown as DiagonalSsmInputs, { outputFinalState }).o,
    ];
    const [fft, states] = [false, true].map((final) => outputsAndGrads((x) => run(x, final), inputs, [upstreams.o]));
    expectClose('o', fft.outputs[0], states.outputs[0], 1e-5);
    expect(Array.from(values(fft.outputs[0]))).not.toEqual(Array.from(values(states.outputs[0])));
    for (const name of Object.keys(inputs))
      expectClose(`gradient on ${name}`, fft.grads[name], states.grads[name], 1e-5);
  }));
