/** DPLR for random sizes, chunk sizes, gates, cuts and packings, in every form, against the float64 recurrence. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { dplrOp } from '../support/deltaOps.js';
import { testMixingOp } from '../support/mixingProperties.js';
import { drawSample, expectOracle, gateStrengths, inScope, type MixingOp } from '../support/opProperties.js';

const TOLERANCE = 1e-5;

testMixingOp({
  kinds: fc.constantFrom(...gateStrengths),
  op: dplrOp,
  forms: ['auto', 'chunk', 'recurrent'],
  tolerance: TOLERANCE,
  leaks: { dplr: dplrOp() },
});

test('the properties can fail: a that reads after the decay, and b left out, are caught', () => {
  const sizes = { B: 1, T: 9, H: 1, K: 4, V: 3 };
  const right = dplrOp('mild');
  const late: MixingOp = { ...right, run: (x, options) => right.run({ ...x, a: x.a.mul(x.g.exp()) }, options) };
  const silent: MixingOp = { ...right, run: (x, options) => right.run({ ...x, b: x.b.mul(0) }, options) };
  inScope(() => {
    for (const wrong of [late, silent])
      expect(() => expectOracle(drawSample(wrong, sizes, { seed: 3 }), {}, TOLERANCE)).toThrow('worst error');
  });
});
