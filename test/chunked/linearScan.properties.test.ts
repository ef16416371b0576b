/** The linear scan for random sizes, factors, cuts and packings, in every form and both directions, against the float64 recurrence. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { type LinearScanInputs, type LinearScanOptions, linearScan } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { linearScanOracle } from '../oracle/linearScan.js';
import { testMixingOp } from '../support/mixingProperties.js';
import {
  anyDocuments,
  anySizes,
  cutAt,
  type Draw,
  drawGate,
  drawSample,
  expectOracle,
  type GateStrength,
  gateStrengths,
  inScope,
  type MixingOp,
} from '../support/opProperties.js';
import { random } from '../support/tensors.js';

const TOLERANCE = 1e-5;
const forms = ['auto', 'chunk', 'scan', 'recurrent'];

interface Kind {
  numbers: 'real' | 'log' | 'complex';
  /** One factor for all tokens. */
  shared: boolean;
  strength: GateStrength;
  reverse?: boolean;
}

/** Factors of size exp(g): their signs, or their angles, are drawn too. */
const drawFactors =
  (strength: GateStrength, complex: boolean): Draw =>
  (seed, length) => {
    const sizes = drawGate(strength)(seed, complex ? length / 2 : length);
    const next = random(seed + 3);
    const pair = (size: number, angle: number) => [size * Math.cos(angle), size * Math.sin(angle)];
    return complex
      ? Float32Array.from([...sizes].flatMap((g) => pair(Math.exp(g), 2 * Math.PI * next())))
      : sizes.map((g) => Math.exp(g) * (next() < 0.3 ? -1 : 1));
  };

function scanOp({ numbers, shared, strength, reverse = false }: Kind): MixingOp {
  const complex = numbers === 'complex';
  const pair = complex ? [2] : [];
  const name = numbers === 'log' ? 'g' : 'a';
  return {
    tokens: ({ B, T, H, K }) => ({
      b: [B, T, H * K, ...pair],
      ...(!shared && { [name]: [B, T, H * K, ...pair] }),
    }),
    shared: ({ H, K }) => (shared ? { [name]: [H * K, ...pair] } : ({} as Record<string, number[]>)),
    states: ({ H, K }, N) => ({ initialState: { shape: [N, H * K, ...pair], final: 'finalState' } }),
    outputs: ({ B, T, H, K }) => ({ o: [B, T, H * K, ...pair] }),
    draw: { a: drawFactors(strength, complex), g: drawGate(strength) },
    run: (inputs, options) =>
      linearScan(inputs as unknown as LinearScanInputs, { ...(options as LinearScanOptions), reverse }),
    oracle: (inputs, { B, T, H, K }, { cuSeqlens }, { o, finalState }) => ({
      ...linearScanOracle(
        inputs as never,
        { B, T, D: H * K, complex },
        { reverse, cuSeqlens },
        { dO: o, dFinalState: finalState },
      ),
    }),
  };
}

const kinds = fc.record({
  numbers: fc.constantFrom('real', 'log', 'complex'),
  shared: fc.boolean(),
  strength: fc.constantFrom(...gateStrengths),
}) as fc.Arbitrary<Kind>;

const mild = { strength: 'mild', shared: false } as const;

testMixingOp({
  ...{ kinds, op: scanOp, forms, tolerance: TOLERANCE },
  leaks: {
    real: scanOp({ ...mild, numbers: 'real' }),
    'logarithms, shared': scanOp({ ...mild, numbers: 'log', shared: true }),
    complex: scanOp({ ...mild, numbers: 'complex' }),
    'complex, shared': scanOp({ ...mild, numbers: 'complex', shared: true }),
  },
});

describe.each(['wasm', 'cpu'] as const)('reverse, %s', (backend) => {
  beforeAll(() => useBackend(backend));
  const drawn = {
    kind: kinds,
    seed: fc.nat({ max: 1e6 }),
    chunkSize: fc.integer({ min: 1, max: 20 }),
    initial: fc.boolean(),
  };
  const numRuns = backend === 'wasm' ? 25 : 10;

  test.each(forms)('%s equals the recurrence in outputs and all gradients', (form) => {
    fc.assert(
      fc.property(fc.record({ ...drawn, sizes: anySizes() }), ({ kind, sizes, chunkSize, ...x }) =>
        inScope(() =>
          expectOracle(drawSample(scanOp({ ...kind, reverse: true }), sizes, x), { form, chunkSize }, TOLERANCE),
        ),
      ),
      { numRuns },
    );
  });

  test.each(forms)('%s: packed documents equal each alone', (form) => {
    fc.assert(
      fc.property(
        fc.record({ ...drawn, sizes: anySizes({ B: 1 }), cuSeqlens: anyDocuments() }),
        ({ kind, chunkSize, ...x }) =>
          inScope(() => {
            const sizes = { ...x.sizes, T: x.cuSeqlens[x.cuSeqlens.length - 1] };
            expectOracle(drawSample(scanOp({ ...kind, reverse: true }), sizes, x), { form, chunkSize }, TOLERANCE);
          }),
      ),
      { numRuns },
    );
  });

  test.each(forms)('%s is the scan of the reversed sequence, and in pieces runs from the last to the first', (form) => {
    fc.assert(
      fc.property(fc.record({ ...drawn, sizes: anySizes(), cut: fc.nat({ max: 39 }) }), ({ kind, sizes, ...x }) =>
        inScope(() => {
          const sample = drawSample(scanOp({ ...kind, reverse: true }), sizes, x);
          const forwards = scanOp(kind);
          const flip = (tensors: Record<string, tf.Tensor>) =>
            Object.fromEntries(
              Object.entries(tensors).map(([name, t]) => [
                name,
                name === 'initialState' || name === 'finalState' || (kind.shared && name !== 'b' && name !== 'o')
                  ? t
                  : tf.reverse(t, 1),
              ]),
            );
          const options = { form, chunkSize: x.chunkSize };
          const pieces = cutAt({ ...sample, op: forwards }, [x.cut], options);
          expectOracle(sample, options, TOLERANCE, (inputs) => flip(pieces(flip(inputs))));
        }),
      ),
      { numRuns: 10 },
    );
  });
});

test('the properties can fail: a factor off by a percent, a state read wrongly and a wrong direction are caught', () => {
  const sizes = { B: 1, T: 9, H: 1, K: 4, V: 1 };
  for (const numbers of ['real', 'log', 'complex'] as const) {
    const right = scanOp({ ...mild, numbers });
    const wrong: MixingOp = {
      ...right,
      run: ({ a, g, ...x }, options) => right.run({ ...x, ...(a ? { a: a.mul(1.01) } : { g: g.add(0.01) }) }, options),
    };
    const forgetful: MixingOp = {
      ...right,
      run: ({ initialState, ...x }, options) => right.run({ ...x, initialState: initialState.mul(0.9) }, options),
    };
    const turned: MixingOp = { ...right, run: scanOp({ ...mild, numbers, reverse: true }).run };
    for (const op of [wrong, forgetful, turned])
      inScope(() =>
        expect(() => expectOracle(drawSample(op, sizes, { seed: 3 }), {}, TOLERANCE)).toThrow('worst error'),
      );
  }
});
