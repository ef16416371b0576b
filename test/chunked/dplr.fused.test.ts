/** The fused DPLR kernel against the float64 recurrence at sizes the properties do not reach: several segments, full width. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dplrOp } from '../support/deltaOps.js';
import { anySizes, drawSample, expectOracle, gateStrengths, inScope, type Sizes } from '../support/opProperties.js';
import { outputsAndGrads, values } from '../support/tensors.js';

/** Worst error of float32 kernels with sums of up to a few hundred terms, relative to the largest value; measured below 1e-6. */
const TOLERANCE = 3e-6;

const anyGate = fc.constantFrom(...gateStrengths);
const seed = fc.nat({ max: 1e6 });

describe('equals the oracle in outputs, final state and all gradients', () => {
  test('for any shape and gate', () => {
    const cases = fc.record({
      sizes: anySizes({ T: 70, H: 3, K: 20, V: 20 }),
      gate: anyGate,
      seed,
      initial: fc.boolean(),
    });
    fc.assert(
      fc.property(cases, ({ gate, sizes, ...x }) => inScope(() => check(gate, sizes, x))),
      { numRuns: 80 },
    );
  });

  test.each(gateStrengths)('at full width, %s gates', (gate) =>
    inScope(() => check(gate, { B: 1, T: 131, H: 2, K: 64, V: 64 }, { seed: 5 })),
  );

  test('over several segments of 256 tokens, at their borders and with documents that end anywhere', () => {
    const T = fc.oneof(fc.constantFrom(255, 256, 257, 512, 513), fc.integer({ min: 250, max: 900 }));
    const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 });
    const cases = fc.record({ sizes: anySizes({ B: 1, H: 2 }), T, cuts, gate: anyGate, seed, initial: fc.boolean() });
    fc.assert(
      fc.property(cases, ({ sizes, T, cuts, gate, ...x }) =>
        inScope(() => {
          const inner = cuts.map((c) => Math.round(c * T)).filter((c) => c > 0 && c < T);
          const ends = [...new Set([0, ...inner, T])].sort((a, b) => a - b);
          check(gate, { ...sizes, T }, { ...x, cuSeqlens: Int32Array.from(ends) });
        }),
      ),
      { numRuns: 15 },
    );
  });
});

test('closed gates get no gradient at all, and a, which reads before they close, gets its own', () => {
  inScope(() => {
    const { op, inputs, upstreams } = drawSample(dplrOp(), { B: 1, T: 40, H: 2, K: 8, V: 8 }, { seed: 1 });
    const closed: typeof inputs = { ...inputs, g: tf.fill(inputs.g.shape, Number.NEGATIVE_INFINITY) };
    const run = (x: typeof inputs) => [op.run(x, {}).o];
    const { grads } = outputsAndGrads(run, closed, [upstreams.o]);
    expect(Array.from(values(grads.g)).every((x) => x === 0)).toBe(true);
    expect(Array.from(values(grads.a)).every((x) => x !== 0)).toBe(true);
  });
});

function check(gate: (typeof gateStrengths)[number], sizes: Sizes, drawn: Parameters<typeof drawSample>[2]): void {
  expectOracle(drawSample(dplrOp(gate), sizes, drawn), { form: 'auto' }, TOLERANCE);
}
