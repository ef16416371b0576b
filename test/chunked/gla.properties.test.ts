/** GLA for random sizes, chunk sizes, gates, cuts and packings, in every form, against the float64 recurrence. */
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { type GlaInputs, type GlaOptions, gla } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { type GlaOracleInputs, glaOracle } from '../oracle/gla.js';
import {
  anyDocuments,
  anySizes,
  cutAt,
  drawGate,
  drawSample,
  expectCausal,
  expectNoLeak,
  expectOracle,
  type GateStrength,
  gateStrengths,
  inScope,
  type MixingOp,
} from '../support/opProperties.js';

const TOLERANCE = 1e-5;
const gates = ['channel', 'head'] as const;
const forms = ['auto', 'chunk', 'recurrent', 'parallel'] as const;

function glaOp(gate: (typeof gates)[number], strength: GateStrength = 'mixed'): MixingOp {
  return {
    tokens: ({ B, T, H, K, V }) => ({
      q: [B, T, H, K],
      k: [B, T, H, K],
      v: [B, T, H, V],
      g: gate === 'head' ? [B, T, H] : [B, T, H, K],
    }),
    states: ({ H, K, V }, N) => ({ initialState: { shape: [N, H, K, V], final: 'finalState' } }),
    outputs: ({ B, T, H, V }) => ({ o: [B, T, H, V] }),
    draw: { g: drawGate(strength) },
    run: (inputs, options) => gla(inputs as unknown as GlaInputs, options as GlaOptions),
    oracle: (inputs, sizes, { cuSeqlens }, { o, finalState }) => ({
      ...glaOracle(inputs as unknown as GlaOracleInputs, sizes, { cuSeqlens }, { dO: o, dFinalState: finalState }),
    }),
  };
}

const any = {
  seed: fc.nat({ max: 1e6 }),
  gate: fc.constantFrom(...gates),
  strength: fc.constantFrom(...gateStrengths),
  chunkSize: fc.constantFrom(1, 2, 3, 4, 5, 8, 12, 16, 32, 64),
  initial: fc.boolean(),
};

describe.each([
  ['wasm', 25],
  ['cpu', 10],
] as const)('%s', (backend, numRuns) => {
  beforeAll(() => useBackend(backend));

  describe.each(forms)('%s', (form) => {
    test('equals the recurrence in outputs and all gradients', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes() }), ({ sizes, gate, strength, chunkSize, ...drawn }) =>
          inScope(() => expectOracle(drawSample(glaOp(gate, strength), sizes, drawn), { form, chunkSize }, TOLERANCE)),
        ),
        { numRuns },
      );
    });

    test('cut anywhere and carried over, also through the gradients', () => {
      const cuts = fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 3 });
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes(), cuts }), (x) =>
          inScope(() => {
            const sample = drawSample(glaOp(x.gate, x.strength), x.sizes, x);
            const options = { form, chunkSize: x.chunkSize };
            expectOracle(sample, options, TOLERANCE, cutAt(sample, x.cuts, options));
          }),
        ),
        { numRuns },
      );
    });

    test('packed documents equal each document alone', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ B: 1 }), cuSeqlens: anyDocuments() }), (x) =>
          inScope(() => {
            const sizes = { ...x.sizes, T: x.cuSeqlens[x.cuSeqlens.length - 1] };
            expectOracle(drawSample(glaOp(x.gate, x.strength), sizes, x), { form, chunkSize: x.chunkSize }, TOLERANCE);
          }),
        ),
        { numRuns },
      );
    });

    test('is causal to the last bit', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes(), at: fc.nat({ max: 39 }) }), (x) =>
          inScope(() => {
            const sample = drawSample(glaOp(x.gate, x.strength), x.sizes, x);
            expectCausal(sample, x.at % x.sizes.T, { form, chunkSize: x.chunkSize });
          }),
        ),
        { numRuns },
      );
    });

    test.each(gates)('leaves no tensor behind, one gate per %s', (gate) => {
      inScope(() => {
        const sizes = { B: 1, T: 37, H: 2, K: 5, V: 3 };
        expectNoLeak(drawSample(glaOp(gate), sizes, { seed: 1 }), { form, chunkSize: 16 });
        const cuSeqlens = Int32Array.of(0, 1, 20, 37);
        expectNoLeak(drawSample(glaOp(gate), sizes, { seed: 2, cuSeqlens }), { form, chunkSize: 16 });
      });
    });
  });
});

test('the properties can fail: a wrong decay, a leak through the cut and a look ahead are caught', () => {
  const sizes = { B: 1, T: 9, H: 1, K: 4, V: 3 };
  const right = glaOp('channel', 'mild');
  const wrong: MixingOp = { ...right, run: (x, options) => right.run({ ...x, g: x.g.mul(1.01) }, options) };
  const forgetful: MixingOp = { ...right, run: ({ q, k, v, g }, options) => right.run({ q, k, v, g }, options) };
  const noncausal: MixingOp = {
    ...right,
    run: (x, options) => ({
      ...right.run(x, options),
      o: right.run({ ...x, q: x.q.reverse(1) }, options).o.reverse(1),
    }),
  };
  inScope(() => {
    const options = { form: 'chunk' };
    expect(() => expectOracle(drawSample(wrong, sizes, { seed: 3 }), options, TOLERANCE)).toThrow('worst error');
    const cut = drawSample(forgetful, sizes, { seed: 3, initial: false });
    expect(() => expectOracle(cut, options, TOLERANCE, cutAt(cut, [4], options))).toThrow('worst error');
    expect(() => expectCausal(drawSample(noncausal, sizes, { seed: 3 }), 4, options)).toThrow('before token 4');
  });
});
