/** Scatterbrain for random sizes, supports, modes, packings and cuts, in both forms, against float64. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import {
  anyDocuments,
  anySizes,
  drawSample,
  expectCausal,
  expectNoLeak,
  expectOracle,
  inScope,
  type MixingOp,
} from '../support/opProperties.js';
import { anyVariant, inPieces, scatterbrainOp, type Variant } from '../support/scatterbrainOp.js';

const TOLERANCE = 1e-5;
const forms = ['auto', 'plain'] as const;
const any = { seed: fc.nat({ max: 1e6 }), variant: anyVariant };
const limits = { T: 90, K: 12, V: 12 };

describe.each([
  ['wasm', 16],
  ['cpu', 4],
] as const)('%s', (backend, numRuns) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each(forms)('%s', (form) => {
    test('equals the definition in o, the state and all gradients', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes(limits) }), ({ sizes, variant, seed }) =>
          inScope(() => {
            const op = scatterbrainOp(variant, { state: true });
            expectOracle(drawSample(op, sizes, { seed, initial: false }), { form }, TOLERANCE);
          }),
        ),
        { numRuns },
      );
    });

    test('packed documents equal each document alone', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ ...limits, B: 1 }), cuSeqlens: anyDocuments(4, 40) }), (x) =>
          inScope(() => {
            const sizes = { ...x.sizes, T: x.cuSeqlens[x.cuSeqlens.length - 1] };
            expectOracle(drawSample(scatterbrainOp(x.variant), sizes, x), { form }, TOLERANCE);
          }),
        ),
        { numRuns: numRuns / 2 },
      );
    });

    test('is causal to the last bit', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ ...limits, T: 80 }), at: fc.nat({ max: 79 }) }), (x) =>
          inScope(() => {
            const op = scatterbrainOp({ ...x.variant, causal: true });
            expectCausal(drawSample(op, x.sizes, x), x.at % x.sizes.T, { form });
          }),
        ),
        { numRuns: numRuns / 2 },
      );
    });

    test('in pieces and token by token through the state it equals one pass, also through the gradients', () => {
      const cuts = fc.array(fc.nat({ max: 80 }), { minLength: 1, maxLength: 4 });
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ ...limits, T: 80 }), cuts, tail: fc.nat({ max: 5 }) }), (x) =>
          inScope(() => {
            const { T } = x.sizes;
            const variant = { ...x.variant, causal: true };
            const singles = Array.from({ length: x.tail }, (_, i) => T - 1 - i);
            const sample = drawSample(scatterbrainOp(variant, { state: true }), x.sizes, { ...x, initial: false });
            const pieces = inPieces(variant, T, [...x.cuts, ...singles], { form });
            expectOracle(sample, { form }, TOLERANCE, pieces);
          }),
        ),
        { numRuns },
      );
    });

    test('leaves no tensor behind', () => {
      inScope(() => {
        const sizes = { B: 1, T: 37, H: 2, K: 5, V: 3 };
        const variant: Variant = {
          ...{ causal: true, r: 4, windowSize: 5, mode: 'sum' },
          hash: { type: 'rotation', numBuckets: 4, bucketSize: 3, rounds: 2 },
        };
        expectNoLeak(drawSample(scatterbrainOp(variant, { state: true }), sizes, { seed: 1, initial: false }), {
          form,
        });
        const cuSeqlens = Int32Array.of(0, 1, 20, 37);
        expectNoLeak(drawSample(scatterbrainOp(variant), sizes, { seed: 2, cuSeqlens }), { form });
      });
    });
  });
});

test('the properties can fail: a wrong temperature, a window too wide, and a look ahead are caught', () => {
  const sizes = { B: 1, T: 9, H: 1, K: 4, V: 3 };
  const variant: Variant = { causal: true, r: 4, windowSize: 3, mode: 'sum' };
  const right = scatterbrainOp(variant);
  const with_ = (other: Partial<Variant>): MixingOp => ({
    ...right,
    run: scatterbrainOp({ ...variant, ...other }).run,
  });
  const scaled: MixingOp = { ...right, run: (x, options) => right.run({ ...x, q: tf.mul(x.q, 1.01) }, options) };
  inScope(() => {
    for (const op of [scaled, with_({ windowSize: 4 }), with_({ mode: 'sparse-only' })])
      expect(() => expectOracle(drawSample(op, sizes, { seed: 3 }), {}, TOLERANCE)).toThrow('worst error');
    const ahead = with_({ causal: false });
    expect(() => expectCausal(drawSample(ahead, sizes, { seed: 3 }), 4, {})).toThrow('before token 4');
  });
});
