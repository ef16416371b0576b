/** The fused kernel of Gated KalmaNet where the properties do not reach: long sequences, wide heads, one token, matrices that are 0, its scratch memory. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { gatedKalmaNet } from '../../src/chunked/index.js';
import { WasmContext } from '../../src/chunked/wasm/runtime.js';
import { drawKeys, type KalmaNetKind, kalmaNetOp } from '../support/gatedKalmaNetOp.js';
import { drawSample, expectOracle, gateStrengths, inScope, type Sizes, type Tensors } from '../support/opProperties.js';
import { outputsAndGrads, values } from '../support/tensors.js';

/** Relative to the largest value; rounding grows with the condition number 1 + 1 / ridgeRatio. */
const TOLERANCE = { 0.02: 2e-4, 0.2: 2e-5 };
type RidgeRatio = keyof typeof TOLERANCE;

interface Case extends Omit<KalmaNetKind, 'ridgeRatio'> {
  ridgeRatio?: RidgeRatio;
  seed?: number;
  initial?: boolean;
  cuSeqlens?: Int32Array;
}

function check(sizes: Sizes, { seed = 7, initial, cuSeqlens, ridgeRatio = 0.2, ...kind }: Case = {}): void {
  inScope(() => {
    const sample = drawSample(kalmaNetOp({ ...kind, ridgeRatio }), sizes, { seed, initial, cuSeqlens });
    expectOracle(sample, {}, TOLERANCE[ridgeRatio]);
  });
}

const kinds = {
  gate: fc.constantFrom(...gateStrengths),
  keys: fc.constantFrom(...(Object.keys(drawKeys) as (keyof typeof drawKeys)[])),
  ridgeRatio: fc.constantFrom<RidgeRatio>(0.02, 0.2),
  numIterations: fc.constantFrom(0, 1, 2, 30),
  lambdaGradient: fc.boolean(),
  decayKk: fc.boolean(),
  initial: fc.boolean(),
  seed: fc.nat({ max: 1e6 }),
} as const;
const upTo = (n: number) => fc.integer({ min: 1, max: n });

describe('equals the oracle in outputs, final states and gradients', () => {
  test('any sizes up to several chunks and panels', () => {
    const sizes = fc.record({ B: upTo(2), T: upTo(70), H: upTo(2), K: upTo(20), V: upTo(20) });
    fc.assert(
      fc.property(fc.record({ ...kinds, sizes }), ({ sizes, ...kind }) => check(sizes, kind)),
      { numRuns: 100 },
    );
  });

  test('over several segments of 256 tokens, at their borders and with documents that end anywhere', () => {
    const T = fc.oneof(fc.constantFrom(255, 256, 257, 512, 513), fc.integer({ min: 250, max: 600 }));
    const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 });
    const cases = fc.record({ ...kinds, T, cuts, H: upTo(2), K: upTo(12), V: upTo(12) });
    fc.assert(
      fc.property(cases, ({ T, cuts, H, K, V, ...kind }) => {
        const inner = cuts.map((c) => Math.round(c * T)).filter((c) => c > 0 && c < T);
        const cuSeqlens = Int32Array.from([...new Set([0, ...inner, T])].sort((a, b) => a - b));
        check({ B: 1, T, H, K, V }, { ...kind, cuSeqlens });
      }),
      { numRuns: 15 },
    );
  });

  test.each(gateStrengths)('at full width, %s gates', (gate) => {
    check({ B: 1, T: 83, H: 1, K: 64, V: 64 }, { gate, ridgeRatio: 0.02 });
  });

  test('wide and uneven heads', () => check({ B: 1, T: 37, H: 1, K: 130, V: 67 }, { gate: 'mild', ridgeRatio: 0.02 }));

  test('one token, alone and among documents', () => {
    for (const K of [1, 2, 3, 4, 5, 7, 8, 13, 24])
      for (const decayKk of [true, false]) check({ B: 2, T: 1, H: 2, K, V: 3 }, { gate: 'mild', decayKk });
    check({ B: 1, T: 1, H: 2, K: 5, V: 3 }, { initial: false });
    check({ B: 1, T: 1, H: 2, K: 5, V: 3 }, { numIterations: 0 });
    check({ B: 1, T: 5, H: 2, K: 9, V: 11 }, { cuSeqlens: Int32Array.of(0, 1, 2, 4, 5) });
  });
});

describe('matrices that say little', () => {
  const sizes = { B: 1, T: 40, H: 2, K: 6, V: 4 };
  const checkWith = (change: (inputs: Tensors) => Tensors) =>
    inScope(() => {
      const sample = drawSample(kalmaNetOp(), sizes, { seed: 3 });
      for (const form of ['auto', 'chunk', 'recurrent'])
        expectOracle({ ...sample, inputs: change(sample.inputs) }, { form }, TOLERANCE[0.02]);
    });

  test('no key and no state: lambda is the ridge ratio', () =>
    checkWith(({ kk, kv, ...x }) => ({ ...x, k: tf.zerosLike(x.k) })));

  test('no key until token 20, and a state of 0', () =>
    checkWith((x) => {
      const late = tf.cast(tf.greaterEqual(tf.range(0, sizes.T), 20), 'float32').reshape([1, sizes.T, 1, 1]);
      return { ...x, k: tf.mul(x.k, late), kk: tf.zerosLike(x.kk) };
    }));

  test('a state of rank 1, diagonal, and the identity', () => {
    const [H, K] = [sizes.H, sizes.K];
    const states = [tf.ones([K, K]), tf.diag(tf.range(0, K)) as tf.Tensor, tf.eye(K)];
    for (const state of states) checkWith((x) => ({ ...x, kk: tf.tile(state.reshape([1, 1, K, K]), [1, H, 1, 1]) }));
    tf.dispose(states);
  });

  test('of a state that is not symmetric the symmetric part is taken', () =>
    checkWith((x) => ({ ...x, kk: tf.add(x.kk, tf.linalg.bandPart(tf.mul(0.1, tf.onesLike(x.kk)), 0, -1)) })));
});

test('where a gate is closed its gradient is exactly 0', () => {
  inScope(() => {
    const { op, inputs, upstreams } = drawSample(
      kalmaNetOp({ gate: 'closed' }),
      { B: 1, T: 70, H: 2, K: 5, V: 3 },
      { seed: 4 },
    );
    const names = Object.keys(upstreams);
    const { grads } = outputsAndGrads(
      (x: Tensors) => names.map((name) => op.run(x, {})[name]),
      inputs,
      names.map((name) => upstreams[name]),
    );
    const [g, dg] = [values(inputs.g), Array.from(values(grads.g))];
    const closed = dg.filter((_, i) => g[i] === Number.NEGATIVE_INFINITY);
    expect(closed.length).toBeGreaterThan(10);
    expect(closed.every((x) => x === 0)).toBe(true);
  });
});

test('nothing is written outside of the scratch memory', () => {
  const GUARD = 4096;
  const guarded: number[] = [];
  const scratch = WasmContext.prototype.scratch;
  const spy = vi.spyOn(WasmContext.prototype, 'scratch').mockImplementation(function (this: WasmContext, bytes, body) {
    return scratch.call(this, bytes + 2 * GUARD, (offset) => {
      const { memory } = this as unknown as { memory: WebAssembly.Memory };
      const guards = () => [offset, offset + GUARD + bytes].map((at) => new Uint8Array(memory.buffer, at, GUARD));
      for (const guard of guards()) guard.fill(170);
      const result = body(offset + GUARD);
      for (const guard of guards()) guarded.push(guard.findIndex((byte) => byte !== 170));
      return result;
    }) as never;
  });
  try {
    for (const K of [1, 3, 8, 12])
      for (const T of [1, 2, 16, 17, 300])
        inScope(() => {
          const { inputs } = drawSample(kalmaNetOp(), { B: 1, T, H: 2, K, V: 2 }, { seed: 1 });
          const run = ({ kk, kv, ...x }: Tensors) => {
            const { o, finalState } = gatedKalmaNet({ ...x, initialState: { kk, kv } } as never);
            return [o, finalState.kk];
          };
          const ones = run(inputs).map((x) => tf.onesLike(x));
          outputsAndGrads(run, inputs, ones);
        });
  } finally {
    spy.mockRestore();
  }
  expect(guarded.length).toBeGreaterThan(100);
  expect(guarded.every((at) => at === -1)).toBe(true);
});
