import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { crossEntropy } from '../../src/chunked/index.js';
import { crossEntropyOracle } from '../oracle/losses.js';
import { onAsyncBackend } from '../support/asyncBackend.js';
import { expectClose, normal, outputsAndGrads, random, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
type Form = (typeof forms)[number];
type Reduction = 'mean' | 'none';
const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

interface Case {
  logits: tf.Tensor;
  targets: tf.Tensor;
  dy: tf.Tensor;
  ignoreIndex?: number;
}

/** `ignored`: the share of targets that are -100. */
function drawCase(
  seed: number,
  N: number,
  V: number,
  { scale = 1, ignored = 0, reduction = 'none' as Reduction } = {},
): Case {
  const next = random(seed);
  const targets = Int32Array.from({ length: N }, () => (next() < ignored ? -100 : Math.floor(next() * V)));
  const [logits, dy] = randomTensors(seed, [N, V], reduction === 'mean' ? [] : [N]);
  return {
    logits: tf.mul(logits, scale),
    targets: tf.tensor1d(targets, 'int32'),
    dy,
    ignoreIndex: ignored ? -100 : undefined,
  };
}

function run({ logits, targets, dy, ignoreIndex }: Case, form: Form) {
  const reduction = dy.rank === 0 ? 'mean' : 'none';
  const op = (x: { logits: tf.Tensor }) => [crossEntropy({ ...x, targets }, { form, ignoreIndex, reduction })];
  const { outputs, grads } = outputsAndGrads(op, { logits }, [dy]);
  return { loss: outputs[0], dLogits: grads.logits };
}

function oracle({ logits, targets, dy, ignoreIndex }: Case) {
  const t = Array.from(values(targets));
  const count = Math.max(1, t.filter((x) => x !== ignoreIndex).length);
  const dys = t.map((_, r) => (dy.rank === 0 ? values(dy)[0] / count : values(dy)[r]));
  const { losses, dLogits } = crossEntropyOracle(values(logits), t, logits.shape[1] as number, dys, ignoreIndex);
  return { loss: dy.rank === 0 ? [losses.reduce((a, b) => a + b, 0) / count] : losses, dLogits };
}

function expectOracle(drawn: Case, form: Form, tolerance: number) {
  const [got, want] = [run(drawn, form), oracle(drawn)];
  expect(got.loss.shape).toEqual(drawn.dy.shape);
  expectClose('loss', got.loss, want.loss, tolerance);
  expectClose('dLogits', got.dLogits, want.dLogits, tolerance);
}

describe.each(forms)('crossEntropy, %s form', (form) => {
  test('equals the oracle in output and gradient', () => {
    fc.assert(
      fc.property(
        fc.record({
          N: fc.integer({ min: 1, max: 20 }),
          V: fc.integer({ min: 1, max: 70 }),
          seed: fc.integer({ min: 0, max: 1e6 }),
          scale: fc.constantFrom(0.01, 1, 10, 1000),
          ignored: fc.constantFrom(0, 0.3, 1),
          reduction: fc.constantFrom<Reduction>('mean', 'none'),
        }),
        ({ N, V, seed, ...options }) => tf.tidy(() => expectOracle(drawCase(seed, N, V, options), form, 1e-6)),
      ),
      { numRuns: 80 },
    );
  });

  test('equals the oracle for 32,000 classes', () => {
    tf.tidy(() => expectOracle(drawCase(1, 5, 32_000, { scale: 3 }), form, 1e-6));
  });

  test('logits may be shifted by any number without a change', () => {
    tf.tidy(() => {
      const drawn = drawCase(2, 6, 33);
      const whole = tf.round(tf.mul(drawn.logits, 8)); // integers, so that the shift itself rounds nothing
      const [a, b] = [0, -1e6].map((shift) => run({ ...drawn, logits: tf.add(whole, shift) }, form));
      expectClose('loss', b.loss, a.loss, 2e-7);
      expectClose('dLogits', b.dLogits, a.dLogits, 2e-7);
    });
  });

  test('logits of -Infinity have probability 0', () => {
    tf.tidy(() => {
      const logits = tf.tensor2d([0, -inf, 0, -inf, 0, 0, -inf, -inf], [2, 4]);
      const drawn = { logits, targets: tf.tensor1d([0, 2], 'int32'), dy: tf.ones([2]) };
      const { loss, dLogits } = run(drawn, form);
      expectClose('loss', loss, [Math.LN2, inf], 1e-6);
      expectClose('dLogits', dLogits, [-0.5, 0, 0.5, 0, 0.5, 0.5, -1, 0], 1e-6);
    });
  });

  test.each([
    ['NaN', [0, nan, 1, 2, 3, 4, 5, 6, 7]],
    ['NaN first', [nan, 0, 1, 2, 3, 4, 5, 6, 7]],
    ['NaN last', [0, 1, 2, 3, 4, 5, 6, 7, nan]],
    ['NaN alone', Array(9).fill(nan)],
    ['Infinity', [0, 1, 2, 3, inf, 5, 6, 7, 8]],
    ['-Infinity alone', Array(9).fill(-inf)],
  ])('%s in a row gives NaN there and nowhere else, and 0 when the row is ignored', (_, row) => {
    tf.tidy(() => {
      const logits = tf.tensor2d(
        [normal(1, 9), Float32Array.from(row), normal(2, 9)].flatMap((x) => [...x]),
        [3, 9],
      );
      for (const target of [2, 4, 8]) {
        const targets = tf.tensor1d([1, target, 7], 'int32');
        const { loss, dLogits } = run({ logits, targets, dy: tf.ones([3]) }, form);
        expect(Array.from(values(loss), Number.isNaN)).toEqual([false, true, false]);
        expect(Array.from(values(dLogits), Number.isNaN)).toEqual(
          Array.from({ length: 27 }, (_, i) => i > 8 && i < 18),
        );
        expect(values(run({ logits, targets, dy: tf.scalar(1) }, form).loss)[0]).toBeNaN();
        expectOracle({ logits, targets, dy: tf.ones([3]), ignoreIndex: target }, form, 1e-6);
      }
    });
  });

  test('a mean over no row is 0, with gradient 0', () => {
    tf.tidy(() => {
      const drawn = { ...drawCase(3, 4, 5, { reduction: 'mean' }), targets: tf.fill([4], 2, 'int32'), ignoreIndex: 2 };
      const { loss, dLogits } = run(drawn, form);
      expectClose('loss', loss, [0], 0);
      expectClose('dLogits', dLogits, new Float32Array(20), 0);
    });
  });

  test('the first target out of range is named, with its row', () => {
    const logits = tf.zeros([3, 4]);
    const targets = (...list: number[]) => tf.tensor1d(list, 'int32');
    expect(() => crossEntropy({ logits, targets: targets(0, 4, 9) }, { form })).toThrow(
      new RangeError('crossEntropy: targets must be in 0 .. 3 (there are 4 logits in a row), got 4 at [1]'),
    );
    expect(() => crossEntropy({ logits, targets: targets(0, 1, -100) }, { form })).toThrow('got -100 at [2]');
    expect(() => crossEntropy({ logits, targets: targets(0, -100, -1) }, { form, ignoreIndex: -100 })).toThrow(
      'got -1 at [2]',
    );
  });

  test('leaves no tensor behind', () => {
    tf.tidy(() => {
      const drawn = drawCase(4, 5, 9, { ignored: 0.5, reduction: 'mean' });
      const before = tf.memory();
      tf.tidy(() => void run(drawn, form));
      expect(() => tf.tidy(() => run({ ...drawn, ignoreIndex: undefined }, form))).toThrow('got -100');
      expect(tf.memory().numTensors).toBe(before.numTensors);
      expect(tf.memory().numBytes).toBe(before.numBytes);
    });
  });
});

test('a tiny loss keeps its digits, and so does its gradient', () => {
  tf.tidy(() => {
    const logits = tf.tensor2d([30, 0, 3, 0, -4, 0, -50, -51, 0, 0, 0, 16, 0, 0], [2, 7]);
    const drawn = { logits, targets: tf.tensor1d([0, 4], 'int32'), dy: tf.ones([2]) };
    const [got, want] = [run(drawn, 'auto'), oracle(drawn)];
    for (const row of [0, 1]) expect(values(got.loss)[row] / want.loss[row]).toBeCloseTo(1, 6);
    for (let i = 0; i < 14; i++) expect(values(got.dLogits)[i] / want.dLogits[i], `dLogits ${i}`).toBeCloseTo(1, 6);
  });
});

test('the mean over 200,000 rows is right to the last float32 digits', () => {
  tf.tidy(() => {
    const drawn = drawCase(5, 200_000, 3, { reduction: 'mean' });
    expectClose('loss', run(drawn, 'auto').loss, oracle(drawn).loss, 1e-7);
  });
});

test('the same call gives the same bits', () => {
  tf.tidy(() => {
    const drawn = drawCase(6, 50, 77, { reduction: 'mean' });
    const [a, b] = [run(drawn, 'auto'), run(drawn, 'auto')];
    expect(values(a.loss)).toEqual(values(b.loss));
    expect(values(a.dLogits)).toEqual(values(b.dLogits));
  });
});

test('where data cannot be read at the call, a target out of range gives NaN', () =>
  onAsyncBackend(async () => {
    const [logits, targets] = [tf.zeros([4, 2]), tf.tensor1d([1, 2, -1, -100], 'int32')];
    const losses = crossEntropy({ logits, targets }, { ignoreIndex: -100, reduction: 'none' });
    const [right, ...others] = await losses.data();
    expect(right).toBeCloseTo(Math.LN2, 6);
    expect(others).toEqual([nan, nan, 0]);
  }));

test('crossEntropy errors name the op, what was expected and what came', () => {
  const [logits, targets] = [tf.zeros([2, 3]), tf.zeros([2], 'int32')];
  expect(() => crossEntropy({ logits, targets: tf.zeros([2]) })).toThrow(
    'crossEntropy: targets must be int32, got float32',
  );
  expect(() => crossEntropy({ logits, targets: tf.zeros([3], 'int32') })).toThrow(
    'targets must have shape [2], got [3]',
  );
  expect(() => crossEntropy({ logits: tf.zeros([3]), targets })).toThrow('logits must have shape [*,*], got [3]');
  expect(() => crossEntropy({ logits: tf.zeros([0, 3]), targets: tf.zeros([0], 'int32') })).toThrow(
    'logits must not be empty, got [0,3]',
  );
  expect(() => crossEntropy({ logits, targets }, { ignoreIndex: 2 ** 40 })).toThrow(
    `ignoreIndex must be an int32, got ${2 ** 40}`,
  );
  const sum = { reduction: 'sum' as 'mean' };
  expect(() => crossEntropy({ logits, targets }, sum)).toThrow("reduction must be one of 'mean', 'none', got 'sum'");
  expect(() => crossEntropy({ logits, targets }, { form: 'chunk' as Form })).toThrow(
    "form must be one of 'auto', 'plain', got 'chunk'",
  );
});
