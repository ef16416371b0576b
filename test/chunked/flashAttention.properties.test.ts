/** Attention for random sizes, head groups, windows, packings and cuts, in all forms, against float64. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { type FlashAttentionInputs, type FlashAttentionOptions, flashAttention } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { type AttentionOracleInputs, attentionOracle } from '../oracle/flashAttention.js';
import { formsOn, useForm } from '../support/attentionForms.js';
import {
  anyDocuments,
  anySizes,
  drawSample,
  expectCausal,
  expectNoLeak,
  expectOracle,
  inScope,
  type MixingOp,
  type OpOptions,
  type Sizes,
} from '../support/opProperties.js';
import { normal, random } from '../support/tensors.js';

const TOLERANCE = 1e-5;

/** `sizes.H` counts the key heads here; the queries have `group` heads for each. */
interface Variant {
  group: number;
  /** Keys of the past, before the first query. */
  past: number;
  causal: boolean;
  window?: number;
}

const simple: Variant = { group: 1, past: 0, causal: true };

function attentionOp({ group, past, causal, window }: Variant): MixingOp {
  const options = { causal, ...(causal && window && { window }) };
  return {
    tokens: ({ B, T, H, K, V }) => ({ q: [B, T, H * group, K], k: [B, past + T, H, K], v: [B, past + T, H, V] }),
    states: () => ({}),
    outputs: ({ B, T, H, V }) => ({ o: [B, T, H * group, V], lse: [B, T, H * group] }),
    run: (inputs, opOptions) =>
      flashAttention(inputs as unknown as FlashAttentionInputs, { ...options, ...opOptions } as FlashAttentionOptions),
    oracle: (inputs, { H, ...sizes }, { cuSeqlens }, { o, lse }) => ({
      ...attentionOracle(
        inputs as unknown as AttentionOracleInputs,
        { ...sizes, S: past + sizes.T, G: H, H: H * group },
        { ...options, cuSeqlens },
        { dO: o, dLse: lse },
      ),
    }),
  };
}

/** With a bias, shared by the batch and by the heads or not, in which a tenth of the pairs are hidden, and a share of the keys masked. */
function biasedOp(
  variant: Variant,
  { shared, hidden, sizes, seed }: { shared: [boolean, boolean]; hidden: number; sizes: Sizes; seed: number },
): MixingOp {
  const op = attentionOp(variant);
  const S = variant.past + sizes.T;
  const next = random(seed + 9);
  const mask = Int32Array.from({ length: sizes.B * S }, () => (next() < hidden ? 0 : 1));
  const shapeOf = ({ B, H }: Sizes) => [shared[0] ? 1 : B, shared[1] ? 1 : H * variant.group];
  return {
    ...op,
    tokens: (sizes) => ({ ...op.tokens(sizes), bias: [...shapeOf(sizes), sizes.T, S] }),
    draw: {
      bias: (seed, length) => {
        const chance = random(seed + 3);
        return normal(seed, length).map((x) => (chance() < 0.1 ? Number.NEGATIVE_INFINITY : 2 * x));
      },
    },
    run: (inputs, options) => op.run({ ...inputs, keyMask: tf.tensor(mask, [sizes.B, S], 'bool') }, options),
    oracle: (inputs, { H, ...sizes }, { cuSeqlens }, { o, lse }) => ({
      ...attentionOracle(
        { ...(inputs as unknown as AttentionOracleInputs), keyMask: mask },
        { ...sizes, S, G: H, H: H * variant.group },
        {
          ...{ causal: variant.causal, cuSeqlens, biasShape: shapeOf({ ...sizes, H }) as [number, number] },
          ...(variant.causal && variant.window && { window: variant.window }),
        },
        { dO: o, dLse: lse },
      ),
    }),
  };
}

const any = {
  seed: fc.nat({ max: 1e6 }),
  variant: fc.record({
    group: fc.integer({ min: 1, max: 3 }),
    past: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 90 })),
    causal: fc.boolean(),
    window: fc.option(fc.integer({ min: 1, max: 100 }), { nil: undefined }),
  }),
};

describe.each([
  ['wasm', 100],
  ['cpu', 10],
] as const)('%s', (backend, numRuns) => {
  beforeAll(() => useBackend(backend));

  describe.each(formsOn(backend))('%s', (name) => {
    const form = useForm(name);

    test('equals the definition in o, lse and all gradients', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ T: 90, K: 20, V: 20 }) }), ({ sizes, variant, seed }) =>
          inScope(() => expectOracle(drawSample(attentionOp(variant), sizes, { seed }), { form }, TOLERANCE)),
        ),
        { numRuns },
      );
    });

    test('with a bias and masked keys it equals the definition, also for queries that see no key', () => {
      const biased = fc.record({
        ...any,
        sizes: anySizes({ T: 90, K: 12, V: 12 }),
        shared: fc.tuple(fc.boolean(), fc.boolean()),
        hidden: fc.constantFrom(0, 0.3, 0.9),
        packed: fc.boolean(),
      });
      fc.assert(
        fc.property(biased, ({ variant, ...x }) =>
          inScope(() => {
            const sizes = x.packed ? { ...x.sizes, B: 1 } : x.sizes;
            const cuSeqlens =
              x.packed && sizes.T > 1 ? Int32Array.of(0, 1 + (x.seed % (sizes.T - 1)), sizes.T) : undefined;
            const op = biasedOp({ ...variant, past: cuSeqlens ? 0 : variant.past }, { ...x, sizes });
            expectOracle(drawSample(op, sizes, { seed: x.seed, cuSeqlens }), { form }, TOLERANCE);
          }),
        ),
        { numRuns },
      );
    });

    test('packed documents equal each document alone', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ B: 1 }), cuSeqlens: anyDocuments(5, 40) }), (x) =>
          inScope(() => {
            const sizes = { ...x.sizes, T: x.cuSeqlens[x.cuSeqlens.length - 1] };
            const op = attentionOp({ ...x.variant, past: 0 });
            expectOracle(drawSample(op, sizes, x), { form }, TOLERANCE);
          }),
        ),
        { numRuns },
      );
    });

    test('is causal to the last bit', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ T: 70 }), at: fc.nat({ max: 69 }) }), (x) =>
          inScope(() => {
            const op = attentionOp({ ...x.variant, past: 0, causal: true });
            expectCausal(drawSample(op, x.sizes, x), x.at % x.sizes.T, { form });
          }),
        ),
        { numRuns: numRuns / 2 },
      );
    });

    test('prefill in pieces and decoding token by token equal one pass, also through the gradients', () => {
      const cuts = fc.array(fc.nat({ max: 60 }), { minLength: 1, maxLength: 4 });
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ T: 60 }), cuts, tail: fc.nat({ max: 3 }) }), (x) =>
          inScope(() => {
            const { T } = x.sizes;
            const variant = { ...x.variant, past: 0, causal: true };
            const singles = Array.from({ length: x.tail }, (_, i) => T - 1 - i);
            const sample = drawSample(attentionOp(variant), x.sizes, x);
            expectOracle(sample, { form }, TOLERANCE, inPieces(sample.op, [...x.cuts, ...singles], T, { form }));
          }),
        ),
        { numRuns: numRuns / 2 },
      );
    });

    test('leaves no tensor behind', () => {
      inScope(() => {
        const sizes = { B: 1, T: 37, H: 2, K: 5, V: 3 };
        expectNoLeak(drawSample(attentionOp({ ...simple, group: 2 }), sizes, { seed: 1 }), { form });
        const cuSeqlens = Int32Array.of(0, 1, 20, 37);
        expectNoLeak(drawSample(attentionOp({ ...simple, window: 3 }), sizes, { seed: 2, cuSeqlens }), { form });
      });
    });
  });
});

/** The op over the pieces between `cuts`, each with all keys up to its end. */
function inPieces(op: MixingOp, cuts: number[], T: number, options: OpOptions) {
  const ends = [...new Set([...cuts.filter((t) => t > 0 && t < T), T])].sort((a, b) => a - b);
  const range = (x: tf.Tensor, start: number, end: number) =>
    tf.slice(x, [0, start, 0, 0], [x.shape[0], end - start, ...x.shape.slice(2)]);
  return ({ q, k, v }: Record<string, tf.Tensor>) => {
    const pieces = ends.map((end, n) =>
      op.run({ q: range(q, ends[n - 1] ?? 0, end), k: range(k, 0, end), v: range(v, 0, end) }, options),
    );
    const join = (name: string) =>
      tf.concat(
        pieces.map((piece) => piece[name]),
        1,
      );
    return { o: join('o'), lse: join('lse') };
  };
}

test('the properties can fail: a wrong scale, a shifted window and a look ahead are caught', () => {
  const sizes = { B: 1, T: 9, H: 1, K: 4, V: 3 };
  const right = attentionOp({ ...simple, window: 4 });
  const wrong: MixingOp = { ...right, run: (x, options) => right.run({ ...x, q: tf.mul(x.q, 1.01) }, options) };
  const shifted: MixingOp = { ...right, run: attentionOp({ ...simple, window: 5 }).run };
  const noncausal: MixingOp = { ...right, run: attentionOp({ ...simple, causal: false }).run };
  inScope(() => {
    for (const op of [wrong, shifted])
      expect(() => expectOracle(drawSample(op, sizes, { seed: 3 }), {}, TOLERANCE)).toThrow('worst error');
    expect(() => expectCausal(drawSample(noncausal, sizes, { seed: 3 }), 4, {})).toThrow('before token 4');
  });
});
