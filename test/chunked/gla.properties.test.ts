/** GLA for random sizes, chunk sizes, gates, cuts and packings, in every form, against the float64 recurrence. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type GlaInputs, type GlaOptions, gla } from '../../src/chunked/index.js';
import { type GlaOracleInputs, glaOracle } from '../oracle/gla.js';
import { testMixingOp } from '../support/mixingProperties.js';
import {
  cutAt,
  drawGate,
  drawSample,
  expectCausal,
  expectOracle,
  type GateStrength,
  gateStrengths,
  inScope,
  type MixingOp,
} from '../support/opProperties.js';

const TOLERANCE = 1e-5;
const gates = ['channel', 'head'] as const;

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

testMixingOp({
  kinds: fc.record({ gate: fc.constantFrom(...gates), strength: fc.constantFrom(...gateStrengths) }),
  op: ({ gate, strength }) => glaOp(gate, strength),
  forms: ['auto', 'chunk', 'recurrent', 'parallel'],
  tolerance: TOLERANCE,
  leaks: { 'one gate per channel': glaOp('channel'), 'one gate per head': glaOp('head') },
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
