/** Attention with low-rank bias and band for random sizes, sharings, windows, packings and cuts, in all forms, against float64; what it must not depend on. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { type FlashBiasInputs, type FlashBiasOptions, flashAttention, flashBias } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { type FlashBiasOracleInputs, flashBiasOracle, type Shape4 } from '../oracle/flashBias.js';
import { attentionForms, formsOn, useForm } from '../support/attentionForms.js';
import {
  anyDocuments,
  anySizes,
  drawSample,
  expectCausal,
  expectNoLeak,
  expectOracle,
  inScope,
  type MixingOp,
  type Sizes,
  type Tensors,
} from '../support/opProperties.js';
import { expectClose, outputsAndGrads, random, randomTensors } from '../support/tensors.js';

const TOLERANCE = 1e-5;

/** `sizes.H` counts the key heads; the queries have `group` heads for each. */
interface Variant {
  group: number;
  /** Keys of the past, before the first query. */
  past: number;
  causal: boolean;
  window?: number;
  /** Rank of the factors; 0: none. */
  rank: number;
  /** Which of sequences and heads share phiQ, phiK and the band. */
  shared: boolean[];
  /** Entries on each side of the middle of the band, and whether all queries share one row; undefined: no band. */
  band?: { side: number; oneRow: boolean };
  /** Share of the keys that are masked. */
  masked: number;
}

const simple: Variant = { group: 1, past: 0, causal: true, rank: 2, shared: Array(6).fill(false), masked: 0 };

function shapesOf({ group, past, rank, shared, band }: Variant, { B, T, H }: Sizes) {
  const [b, h] = [(i: number) => (shared[i] ? 1 : B), (i: number) => (shared[i] ? 1 : H * group)];
  const shape = (b: number, t: number, h: number, n: number): Shape4 => [b, t, h, n];
  return {
    ...(rank && { phiQ: shape(b(0), T, h(1), rank), phiK: shape(b(2), past + T, h(3), rank) }),
    ...(band && { band: shape(b(4), band.oneRow ? 1 : T, h(5), 2 * band.side + 1) }),
  };
}

function biasOp(variant: Variant, seed: number): MixingOp {
  const { group, past, causal, window, band } = variant;
  const options = { causal, ...(causal && window && { window }) };
  const maskOf = ({ B, T }: Sizes) => {
    const next = random(seed + 9);
    return Int32Array.from({ length: B * (past + T) }, () => (next() < variant.masked ? 0 : 1));
  };
  const terms = (sizes: Sizes): Record<'tokens' | 'shared', Record<string, number[]>> => {
    const { band: rows, ...factors } = shapesOf(variant, sizes);
    const asLists = (x: object) => Object.fromEntries(Object.entries(x).map(([name, shape]) => [name, [...shape]]));
    return band?.oneRow
      ? { tokens: asLists(factors), shared: { band: [...(rows as Shape4)] } }
      : { tokens: asLists({ ...factors, ...(rows && { band: rows }) }), shared: {} };
  };
  return {
    tokens: (sizes) => {
      const { B, T, H, K, V } = sizes;
      const qkv = { q: [B, T, H * group, K], k: [B, past + T, H, K], v: [B, past + T, H, V] };
      return { ...qkv, ...terms(sizes).tokens };
    },
    shared: (sizes) => terms(sizes).shared,
    states: () => ({}),
    outputs: ({ B, T, H, V }) => ({ o: [B, T, H * group, V], lse: [B, T, H * group] }),
    run: (inputs, opOptions) => {
      const [B, S] = inputs.k.shape as [number, number];
      const mask = maskOf({ B, T: S - past } as Sizes);
      const keyMask = variant.masked ? { keyMask: tf.tensor(mask, [B, S], 'bool') } : {};
      return flashBias({ ...(inputs as unknown as FlashBiasInputs), ...keyMask }, {
        ...options,
        ...opOptions,
      } as FlashBiasOptions);
    },
    oracle: (inputs, { H, ...sizes }, { cuSeqlens }, { o, lse }) => ({
      ...flashBiasOracle(
        {
          ...(inputs as unknown as FlashBiasOracleInputs),
          ...(variant.masked && { keyMask: maskOf({ H, ...sizes }) }),
        },
        { ...sizes, S: past + sizes.T, G: H, H: H * group },
        shapesOf(variant, { H, ...sizes }),
        { ...options, cuSeqlens },
        { dO: o, dLse: lse },
      ),
    }),
  };
}

const anyVariant = fc
  .record({
    group: fc.integer({ min: 1, max: 3 }),
    past: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 80 })),
    causal: fc.boolean(),
    window: fc.option(fc.integer({ min: 1, max: 100 }), { nil: undefined }),
    rank: fc.integer({ min: 0, max: 11 }),
    shared: fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }),
    band: fc.option(fc.record({ side: fc.integer({ min: 0, max: 90 }), oneRow: fc.boolean() }), { nil: undefined }),
    masked: fc.constantFrom(0, 0, 0.3, 0.9),
  })
  .filter(({ rank, band }) => rank > 0 || band !== undefined);

const any = { seed: fc.nat({ max: 1e6 }), variant: anyVariant };

describe.each([
  ['wasm', 40],
  ['cpu', 8],
] as const)('%s', (backend, numRuns) => {
  beforeAll(() => useBackend(backend));

  describe.each(formsOn(backend))('%s', (name) => {
    const form = useForm(name);

    test('equals the definition in o, lse and all gradients', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ T: 80, K: 10, V: 10 }) }), ({ sizes, variant, seed }) =>
          inScope(() => expectOracle(drawSample(biasOp(variant, seed), sizes, { seed }), { form }, TOLERANCE)),
        ),
        { numRuns },
      );
    });

    test('packed documents equal each document alone', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ B: 1 }), cuSeqlens: anyDocuments(5, 40) }), (x) =>
          inScope(() => {
            const sizes = { ...x.sizes, T: x.cuSeqlens[x.cuSeqlens.length - 1] };
            expectOracle(drawSample(biasOp({ ...x.variant, past: 0 }, x.seed), sizes, x), { form }, TOLERANCE);
          }),
        ),
        { numRuns: numRuns / 2 },
      );
    });

    test('is causal to the last bit', () => {
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ T: 70 }), at: fc.nat({ max: 69 }) }), (x) =>
          inScope(() => {
            const op = biasOp({ ...x.variant, past: 0, causal: true }, x.seed);
            expectCausal(drawSample(op, x.sizes, x), x.at % x.sizes.T, { form });
          }),
        ),
        { numRuns: numRuns / 4 },
      );
    });

    test('in pieces, so in other tiles, and token by token it equals one pass, also through the gradients', () => {
      const cuts = fc.array(fc.nat({ max: 60 }), { minLength: 1, maxLength: 4 });
      fc.assert(
        fc.property(fc.record({ ...any, sizes: anySizes({ T: 60 }), cuts, tail: fc.nat({ max: 3 }) }), (x) =>
          inScope(() => {
            const { T } = x.sizes;
            const op = biasOp({ ...x.variant, past: 0, causal: true, masked: 0 }, x.seed);
            const ends = [...x.cuts, ...Array.from({ length: x.tail }, (_, i) => T - 1 - i)];
            expectOracle(drawSample(op, x.sizes, x), { form }, TOLERANCE, inPieces(op, ends, T, form));
          }),
        ),
        { numRuns: numRuns / 4 },
      );
    });

    test('leaves no tensor behind', () => {
      inScope(() => {
        const sizes = { B: 2, T: 37, H: 2, K: 5, V: 3 };
        const shared = [true, false, false, true, true, true];
        const variant = { ...simple, group: 2, shared, band: { side: 4, oneRow: true } };
        expectNoLeak(drawSample(biasOp(variant, 1), sizes, { seed: 1 }), { form });
        const cuSeqlens = Int32Array.of(0, 1, 20, 37);
        expectNoLeak(drawSample(biasOp(simple, 2), { ...sizes, B: 1 }, { seed: 2, cuSeqlens }), { form });
      });
    });
  });
});

/** The op over the pieces between `cuts`, each with all keys up to its end. */
function inPieces(op: MixingOp, cuts: number[], T: number, form: 'auto' | 'plain') {
  const ends = [...new Set([...cuts.filter((t) => t > 0 && t < T), T])].sort((a, b) => a - b);
  const range = (x: tf.Tensor, start: number, end: number) => tf.slice(x, [0, start, 0, 0], [-1, end - start, -1, -1]);
  return (x: Tensors) => {
    const pieces = ends.map((end, n) => {
      const start = ends[n - 1] ?? 0;
      const of = ([name, all]: [string, tf.Tensor]): [string, tf.Tensor] => {
        if (name === 'band' && all.shape[1] === 1) return [name, all];
        return [name, range(all, ['q', 'phiQ', 'band'].includes(name) ? start : 0, end)];
      };
      return op.run(Object.fromEntries(Object.entries(x).map(of)), { form });
    });
    const join = (name: string) =>
      tf.concat(
        pieces.map((piece) => piece[name]),
        1,
      );
    return { o: join('o'), lse: join('lse') };
  };
}

describe.each(attentionForms)('%s: what the outputs do not depend on', (name) => {
  const form = useForm(name);

  beforeAll(() => useBackend('wasm'));
  const anyCall = fc.record({
    seed: fc.nat({ max: 1e5 }),
    T: fc.integer({ min: 1, max: 90 }),
    past: fc.integer({ min: 0, max: 40 }),
    H: fc.integer({ min: 1, max: 3 }),
    R: fc.integer({ min: 1, max: 6 }),
    causal: fc.boolean(),
  });
  type Call = { seed: number; T: number; past: number; H: number; R: number; causal: boolean };
  const draw = ({ seed, T, past, H, R }: Call) => {
    const S = past + T;
    const shapes = [T, S].map((n) => [2, n, H, R]);
    const [q, k, v, phiQ, phiK, dO] = randomTensors(
      seed,
      ...[
        [2, T, H, 5],
        [2, S, H, 5],
        [2, S, H, 4],
      ],
      ...shapes,
      [2, T, H, 4],
    );
    return { inputs: { q, k, v, phiQ, phiK }, dO };
  };
  const check = (property: (call: Call) => void) =>
    fc.assert(
      fc.property(anyCall, (call) => inScope(() => property(call))),
      { numRuns: 25 },
    );

  test('factors of zeros: plain attention, gradients and all', () =>
    check((call) => {
      const { inputs, dO } = draw(call);
      const { q, k, v } = inputs;
      const options = { causal: call.causal, form };
      const zero = { phiQ: tf.zerosLike(inputs.phiQ), phiK: tf.zerosLike(inputs.phiK) };
      const got = outputsAndGrads(
        (x: Tensors) => outputsOf(flashBias({ ...zero, ...x } as never, options)),
        { q, k, v },
        [dO],
      );
      const want = outputsAndGrads((x: Tensors) => outputsOf(flashAttention(x as never, options)), { q, k, v }, [dO]);
      for (const [i, x] of got.outputs.entries()) expectClose('output', x, want.outputs[i], 1e-6);
      for (const name of ['q', 'k', 'v'] as const) expectClose(`d${name}`, got.grads[name], want.grads[name], 2e-6);
    }));

  test('phiQ A and phiK A^-T give the same', () =>
    check((call) => {
      const { inputs } = draw(call);
      const { A, inverseTransposed } = rotationWithScale(call.R, call.seed);
      const times = (x: tf.Tensor, m: tf.Tensor) =>
        tf.reshape(tf.matMul(tf.reshape(x, [-1, call.R]), m as tf.Tensor2D), x.shape);
      const options = { causal: call.causal, form };
      const want = flashBias(inputs, options);
      const got = flashBias(
        { ...inputs, phiQ: times(inputs.phiQ, A), phiK: times(inputs.phiK, inverseTransposed) },
        options,
      );
      expectClose('o', got.o, want.o, 1e-5);
      expectClose('lse', got.lse, want.lse, 1e-5);
    }));

  test('a constant of each row moves lse alone', () =>
    check((call) => {
      const { inputs } = draw(call);
      const [constant] = randomTensors(call.seed + 1, [2, call.T, call.H, 1]);
      const options = { causal: call.causal, form };
      const ones = tf.ones([2, call.past + call.T, call.H, 1]);
      const more = { phiQ: tf.concat([constant, inputs.phiQ], 3), phiK: tf.concat([ones, inputs.phiK], 3) };
      const [want, got] = [flashBias(inputs, options), flashBias({ ...inputs, ...more }, options)];
      expectClose('o', got.o, want.o, 1e-5);
      expectClose('lse', got.lse, tf.add(want.lse, tf.squeeze(constant, [3])), 1e-5);
    }));
});

const outputsOf = ({ o, lse }: { o: tf.Tensor; lse: tf.Tensor }) => [o, lse];

/** A matrix of Givens rotations and scales between 1/2 and 2, and the transpose of its inverse. */
function rotationWithScale(n: number, seed: number): { A: tf.Tensor; inverseTransposed: tf.Tensor } {
  const next = random(seed + 5);
  const identity = () => Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => Number(i === j)));
  const [A, inverse] = [identity(), identity()];
  for (let i = 0; i + 1 < n; i++) {
    const angle = 2 * Math.PI * next();
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    for (const rows of [A, inverse])
      for (const row of rows) [row[i], row[i + 1]] = [c * row[i] + s * row[i + 1], c * row[i + 1] - s * row[i]];
  }
  for (let j = 0; j < n; j++) {
    const scale = 2 ** (2 * next() - 1);
    for (const row of A) row[j] *= scale;
    for (const row of inverse) row[j] /= scale;
  }
  return { A: tf.tensor2d(A), inverseTransposed: tf.tensor2d(inverse) };
}

test('the properties can fail: scaled factors, a band one off and factors of the wrong head are caught', () => {
  const sizes = { B: 1, T: 9, H: 2, K: 4, V: 3 };
  const right = biasOp({ ...simple, band: { side: 2, oneRow: true } }, 3);
  const changes: ((x: Tensors) => Tensors)[] = [
    (x) => ({ ...x, phiQ: tf.mul(x.phiQ, 1.01) }),
    (x) => ({ ...x, band: tf.concat([tf.slice(x.band, [0, 0, 0, 1], [-1, -1, -1, 4]), tf.zeros([1, 1, 2, 1])], 3) }),
    (x) => ({ ...x, phiK: tf.reverse(x.phiK, 2) }),
  ];
  inScope(() => {
    for (const change of changes) {
      const wrong = { ...right, run: (x: Tensors, options: object) => right.run(change(x), options) };
      expect(() => expectOracle(drawSample(wrong, sizes, { seed: 3 }), {}, TOLERANCE)).toThrow('worst error');
    }
  });
});
