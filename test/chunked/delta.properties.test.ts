/** The delta rules for random sizes, chunk sizes, gates, strengths, cuts and packings, in every form, against the float64 recurrence. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type DeltaKind, type DeltaName, deltaGates, deltaOp, strengths } from '../support/deltaOps.js';
import { testMixingOp } from '../support/mixingProperties.js';
import {
  cutAt,
  drawSample,
  expectCausal,
  expectOracle,
  gateStrengths,
  inScope,
  type MixingOp,
} from '../support/opProperties.js';

const TOLERANCE = 1e-5;
const names = Object.keys(deltaGates) as DeltaName[];

const kinds: fc.Arbitrary<DeltaKind & { name: DeltaName }> = fc.record({
  name: fc.constantFrom(...names),
  gate: fc.constantFrom(...gateStrengths),
  beta: fc.constantFrom(...(Object.keys(strengths) as (keyof typeof strengths)[])),
  keys: fc.constantFrom('unit', 'unit', 'same'),
  groups: fc.constantFrom(1, 1, 2, 3),
});

testMixingOp({
  kinds,
  op: ({ name, ...kind }) => deltaOp(name, kind),
  forms: ['auto', 'chunk', 'recurrent'],
  tolerance: TOLERANCE,
  leaks: Object.fromEntries(names.map((name) => [name, deltaOp(name, { groups: 2 })])),
});

test('the properties can fail: a wrong strength, a wrong head, a leak through the cut and a look ahead are caught', () => {
  const sizes = { B: 1, T: 9, H: 2, K: 4, V: 3 };
  const right = deltaOp('kda', { gate: 'mild', groups: 2 });
  const weak: MixingOp = { ...right, run: (x, options) => right.run({ ...x, beta: x.beta.mul(0.99) }, options) };
  const swapped: MixingOp = { ...right, run: (x, options) => right.run({ ...x, k: x.k.reverse(2) }, options) };
  const forgetful: MixingOp = {
    ...right,
    run: ({ q, k, v, g, beta }, options) => right.run({ q, k, v, g, beta }, options),
  };
  const noncausal: MixingOp = {
    ...right,
    run: (x, options) => ({
      ...right.run(x, options),
      o: right.run({ ...x, q: x.q.reverse(1) }, options).o.reverse(1),
    }),
  };
  inScope(() => {
    const options = { form: 'chunk' };
    for (const wrong of [weak, swapped])
      expect(() => expectOracle(drawSample(wrong, sizes, { seed: 3 }), options, TOLERANCE)).toThrow('worst error');
    const cut = drawSample(forgetful, sizes, { seed: 3, initial: false });
    expect(() => expectOracle(cut, options, TOLERANCE, cutAt(cut, [4], options))).toThrow('worst error');
    expect(() => expectCausal(drawSample(noncausal, sizes, { seed: 3 }), 4, options)).toThrow('before token 4');
  });
});
