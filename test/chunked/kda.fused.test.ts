/** The fused kernel of the delta rules where the properties do not reach: long sequences, wide heads, gates per head and none, one token. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { kda } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { type DeltaKind, type DeltaName, deltaGates, deltaOp } from '../support/deltaOps.js';
import { drawSample, expectOracle, gateStrengths, gradName, inScope, type Sizes } from '../support/opProperties.js';
import { normal, outputsAndGrads, values } from '../support/tensors.js';

/** Worst error of float32 kernels with sums of up to a few hundred terms, relative to the largest value; measured below 2e-6. */
const TOLERANCE = 5e-6;
const names = Object.keys(deltaGates) as DeltaName[];

beforeAll(() => useBackend('wasm'));

function check(
  name: DeltaName,
  kind: DeltaKind,
  sizes: Sizes,
  more: { seed?: number; cuSeqlens?: Int32Array } = {},
): void {
  inScope(() => expectOracle(drawSample(deltaOp(name, kind), sizes, { seed: 7, ...more }), {}, TOLERANCE));
}

const kinds = {
  name: fc.constantFrom(...names),
  gate: fc.constantFrom(...gateStrengths),
  // Without "all two": reflections by one key all along never fade, so that float32 loses a digit every 100 tokens, token by token too.
  beta: fc.constantFrom('usual', 'negative eigenvalues', 'none'),
  keys: fc.constantFrom('unit', 'same'),
  groups: fc.constantFrom(1, 2, 3),
  seed: fc.nat({ max: 1e6 }),
} as const;
const upTo = (n: number) => fc.integer({ min: 1, max: n });

describe('equals the oracle in outputs, final state and gradients', () => {
  test('any sizes up to several chunks and panels', () => {
    const sizes = fc.record({ B: upTo(2), T: upTo(70), H: upTo(2), K: upTo(20), V: upTo(20) });
    fc.assert(
      fc.property(fc.record({ ...kinds, sizes }), ({ name, seed, sizes, ...kind }) =>
        check(name, kind, sizes, { seed }),
      ),
      { numRuns: 120 },
    );
  });

  test('over several segments of 256 tokens, at their borders and with documents that end anywhere', () => {
    const T = fc.oneof(fc.constantFrom(255, 256, 257, 512, 513), fc.integer({ min: 250, max: 700 }));
    const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 });
    const cases = fc.record({ ...kinds, T, cuts, H: upTo(2), K: upTo(12), V: upTo(12) });
    fc.assert(
      fc.property(cases, ({ name, seed, T, cuts, H, K, V, ...kind }) => {
        const inner = cuts.map((c) => Math.round(c * T)).filter((c) => c > 0 && c < T);
        const cuSeqlens = Int32Array.from([...new Set([0, ...inner, T])].sort((a, b) => a - b));
        check(name, kind, { B: 1, T, H, K, V }, { seed, cuSeqlens });
      }),
      { numRuns: 20 },
    );
  });

  test.each(names.flatMap((name) => gateStrengths.map((gate) => [name, gate] as const)))(
    'at full width: %s, %s gates',
    (name, gate) => check(name, { gate, groups: 2 }, { B: 1, T: 83, H: 1, K: 64, V: 64 }),
  );

  test.each(names)('wide and uneven heads: %s', (name) =>
    check(name, { gate: 'mild' }, { B: 1, T: 37, H: 1, K: 130, V: 201 }),
  );

  test.each(names)('one token, alone and among documents: %s', (name) => {
    for (const V of [1, 3, 4, 5, 7, 8, 13, 24]) check(name, { groups: 2 }, { B: 2, T: 1, H: 2, K: 6, V });
    check(name, { groups: 2 }, { B: 1, T: 5, H: 2, K: 9, V: 11 }, { cuSeqlens: Int32Array.of(0, 1, 2, 4, 5) });
  });

  test('one key all along and strengths up to 2, where the inverse by repeated squaring explodes', () =>
    check('deltaRule', { keys: 'same', beta: 'negative eigenvalues' }, { B: 1, T: 300, H: 1, K: 16, V: 16 }));
});

test('nothing is written where beta is 0, and its gradient is the residual read by the gradient on the write', () => {
  inScope(() => {
    const { inputs } = drawSample(
      deltaOp('kda', { beta: 'none', gate: 'mild' }),
      { B: 1, T: 20, H: 1, K: 4, V: 4 },
      { seed: 2 },
    );
    const upstreams = [tf.tensor(normal(1, 80), [1, 20, 1, 4]), tf.zeros([1, 1, 4, 4])];
    const run = (x: typeof inputs) => Object.values(kda(x as never));
    const { outputs, grads } = outputsAndGrads(run, inputs, upstreams);
    const silent = run({ ...inputs, v: tf.zerosLike(inputs.v) });
    expect(Array.from(values(outputs[0]))).toEqual(Array.from(values(silent[0])));
    expect(Array.from(values(grads.v)).every((x) => x === 0)).toBe(true);
    expect(Array.from(values(grads.beta)).some((x) => Math.abs(x) > 1e-3)).toBe(true);
  });
});

test.each(['kda', 'gatedDeltaRule'] as const)('%s: where a gate is closed its gradient is exactly 0', (name) => {
  inScope(() => {
    const { op, inputs, upstreams } = drawSample(
      deltaOp(name, { gate: 'closed' }),
      { B: 1, T: 70, H: 2, K: 5, V: 3 },
      { seed: 4 },
    );
    const { grads } = outputsAndGrads((x: typeof inputs) => Object.values(op.run(x, {})), inputs, [
      upstreams.o,
      upstreams.finalState,
    ]);
    const [g, dg] = [values(inputs.g), Array.from(values(grads.g))];
    const closed = dg.filter((_, i) => g[i] === Number.NEGATIVE_INFINITY);
    expect(closed.length).toBeGreaterThan(10);
    expect(
      closed.every((x) => x === 0),
      gradName('g'),
    ).toBe(true);
  });
});
