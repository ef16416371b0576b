/** What stands around the scan of S5 against float64 loops, with gradients. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { channelScale, modeInput, modeOutput } from '../../src/chunked/s5/index.js';
import { useBackend } from '../../src/index.js';
import { type Complex, complexes, conj, plus, scaled, times } from '../oracle/complex.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const upTo = (n: number) => fc.integer({ min: 1, max: n });
const sizes = fc.record({ P: upTo(9), H: upTo(21), T: upTo(80), seed: fc.nat({ max: 1e6 }) });
const TOLERANCE = 1e-6;

describe.each([
  ['wasm', 'auto'],
  ['wasm', 'plain'],
  ['cpu', 'auto'],
] as const)('%s, %s', (backend, form) => {
  beforeAll(() => useBackend(backend));
  const always = (check: (x: { P: number; H: number; T: number; seed: number }) => void) =>
    fc.assert(
      fc.property(sizes, (x) => inScope(() => check(x))),
      { numRuns: 40 },
    );

  test('modeInput: rows Re and Im of psi b', () =>
    always(({ P, H, seed }) => {
      const [b, psi, dw] = randomTensors(seed, [P, H, 2], [P, 2], [2 * P, H]);
      const { outputs, grads } = outputsAndGrads(
        (x: { b: tf.Tensor; psi: tf.Tensor }) => [modeInput(x, { form })],
        { b, psi },
        [dw],
      );
      const [bs, factors, g] = [complexes(values(b)), complexes(values(psi)), values(dw)];
      const w = new Float64Array(2 * P * H);
      const dPsi: Complex[] = factors.map(() => [0, 0]);
      const db = bs.map((x, i) => {
        const [p, h] = [Math.floor(i / H), i % H];
        const [re, im] = [2 * p * H + h, (2 * p + 1) * H + h];
        [w[re], w[im]] = times(factors[p], x);
        const upstream: Complex = [g[re], g[im]];
        dPsi[p] = plus(dPsi[p], times(conj(x), upstream));
        return times(conj(factors[p]), upstream);
      });
      expectClose('w', outputs[0], w, TOLERANCE);
      expectClose('db', grads.b, db.flat(), TOLERANCE);
      expectClose('dPsi', grads.psi, dPsi.flat(), TOLERANCE);
    }));

  test('modeInput without psi: the parts of b, and their gradient, to the last bit', () =>
    always(({ P, H, seed }) => {
      const [b, dw] = randomTensors(seed, [P, H, 2], [2 * P, H]);
      const { outputs, grads } = outputsAndGrads((x: { b: tf.Tensor }) => [modeInput(x, { form })], { b }, [dw]);
      expectClose('w', outputs[0], tf.transpose(b, [0, 2, 1]).reshape([2 * P, H]), 0);
      expectClose('db', grads.b, tf.transpose(dw.reshape([P, 2, H]), [0, 2, 1]), 0);
    }));

  test('modeOutput: factor times the conjugate', () =>
    always(({ P, H, seed }) => {
      const [c, dw] = randomTensors(seed, [H, P, 2], [H, 2 * P]);
      const run = (x: { c: tf.Tensor }) => [modeOutput(x, { factor: 2, form })];
      const { outputs, grads } = outputsAndGrads(run, { c }, [dw]);
      const doubled = (x: tf.Tensor) => complexes(values(x)).flatMap((z) => scaled(2, conj(z)));
      expectClose('w', outputs[0], doubled(c), 0);
      expectClose('dc', grads.c, doubled(dw), 0);
      expect(outputs[0].shape).toEqual([H, 2 * P]);
    }));

  test('channelScale: x d, and the sum over all rows', () =>
    always(({ H, T, seed }) => {
      const [x, d, dy] = randomTensors(seed, [2, T, H], [H], [2, T, H]);
      const run = (all: { x: tf.Tensor; d: tf.Tensor }) => [channelScale(all, { form })];
      const { outputs, grads } = outputsAndGrads(run, { x, d }, [dy]);
      const [xs, ds, g] = [x, d, dy].map((t) => Array.from(values(t)));
      const dd = new Float64Array(H);
      for (const [i, v] of xs.entries()) dd[i % H] += v * g[i];
      expectClose(
        'y',
        outputs[0],
        xs.map((v, i) => v * ds[i % H]),
        TOLERANCE,
      );
      expectClose(
        'dx',
        grads.x,
        g.map((v, i) => v * ds[i % H]),
        TOLERANCE,
      );
      expectClose('dd', grads.d, dd, TOLERANCE);
    }));
});
