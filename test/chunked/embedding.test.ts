import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { embedding } from '../../src/chunked/index.js';
import { embeddingOracle } from '../oracle/losses.js';
import { onAsyncBackend } from '../support/asyncBackend.js';
import { expectClose, outputsAndGrads, random, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
type Form = (typeof forms)[number];

function randomIds(seed: number, shape: number[], V: number): tf.Tensor {
  const next = random(seed);
  const ids = Int32Array.from({ length: tf.util.sizeFromShape(shape) }, () => Math.floor(next() * V));
  return tf.tensor(ids, shape, 'int32');
}

function run(ids: tf.Tensor, table: tf.Tensor, dy: tf.Tensor, form: Form) {
  const { outputs, grads } = outputsAndGrads((x) => [embedding({ ids, ...x }, { form })], { table }, [dy]);
  return { y: outputs[0], dTable: grads.table };
}

describe.each(forms)('embedding, %s form', (form) => {
  test('equals the oracle in output and gradient', () => {
    fc.assert(
      fc.property(
        fc.record({
          shape: fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 0, maxLength: 3 }),
          V: fc.integer({ min: 1, max: 40 }),
          D: fc.integer({ min: 1, max: 41 }),
          seed: fc.integer({ min: 0, max: 1e6 }),
        }),
        ({ shape, V, D, seed }) => {
          tf.tidy(() => {
            const ids = randomIds(seed, shape, V);
            const [table, dy] = randomTensors(seed, [V, D], [...shape, D]);
            const want = embeddingOracle(values(ids), values(table), D, values(dy));
            const { y, dTable } = run(ids, table, dy, form);
            expect(y.shape).toEqual([...shape, D]);
            expectClose('y', y, want.y, 0);
            // Up to 216 rows for one id: the plain form sums them in float32.
            expectClose('dTable', dTable, want.dTable, form === 'auto' ? 1e-7 : 2e-6);
          });
        },
      ),
      { numRuns: 60 },
    );
  });

  test('the first id out of range is named, with its position', () => {
    const table = tf.zeros([5, 2]);
    const ids = (...list: number[]) => tf.tensor2d(list, [2, 3], 'int32');
    expect(() => embedding({ ids: ids(0, 1, 2, 3, 5, 7), table }, { form })).toThrow(
      new RangeError('embedding: ids must be in 0 .. 4 (there are 5 rows in the table), got 5 at [1,1]'),
    );
    expect(() => embedding({ ids: ids(0, 1, -1, 3, 4, 0), table }, { form })).toThrow('got -1 at [0,2]');
  });

  test('no id gives no row, and a gradient of zeros', () => {
    const table = tf.ones([3, 4]);
    const { y, dTable } = run(tf.zeros([2, 0], 'int32'), table, tf.zeros([2, 0, 4]), form);
    expect(y.shape).toEqual([2, 0, 4]);
    expectClose('dTable', dTable, new Float32Array(12), 0);
  });

  test('leaves no tensor behind', () => {
    const [table, dy] = randomTensors(2, [9, 5], [2, 3, 5]);
    const ids = randomIds(3, [2, 3], 9);
    const before = tf.memory();
    tf.tidy(() => void run(ids, table, dy, form));
    expect(() => tf.tidy(() => embedding({ ids, table: tf.zeros([1, 5]) }, { form }))).toThrow('got');
    expect(tf.memory().numTensors).toBe(before.numTensors);
    expect(tf.memory().numBytes).toBe(before.numBytes);
    tf.dispose([table, dy, ids]);
  });
});

test('the gradient of one id seen 300,000 times is right to the last float32 digit', () => {
  tf.tidy(() => {
    const n = 300_000;
    const next = random(4);
    const dy = Float32Array.from({ length: n * 3 }, () => next() + 0.1);
    const ids = Int32Array.from({ length: n }, (_, r) => Number(r % 7 === 0));
    const want = embeddingOracle(ids, new Float32Array(6), 3, dy);
    const { dTable } = run(tf.tensor1d(ids, 'int32'), tf.zeros([2, 3]), tf.tensor2d(dy, [n, 3]), 'auto');
    expect(Array.from(values(dTable))).toEqual(Array.from(want.dTable, Math.fround));
  });
});

test('the same call gives the same bits', () => {
  tf.tidy(() => {
    const ids = randomIds(5, [500], 11);
    const [table, dy] = randomTensors(6, [11, 19], [500, 19]);
    const [a, b] = [run(ids, table, dy, 'auto'), run(ids, table, dy, 'auto')];
    expect(Array.from(values(a.dTable))).toEqual(Array.from(values(b.dTable)));
  });
});

test('NaN in the upstream stays in the row of its id', () => {
  const dy = tf.tensor2d([1, 1, Number.NaN, 1, 1, 1], [3, 2]);
  const { dTable } = run(tf.tensor1d([0, 2, 0], 'int32'), tf.zeros([3, 2]), dy, 'auto');
  expect(Array.from(values(dTable))).toEqual([2, 2, 0, 0, Number.NaN, 1]);
});

test('where data cannot be read at the call, an id out of range gives a row of NaN', () =>
  onAsyncBackend(async () => {
    const y = embedding({ ids: tf.tensor1d([1, 3, -1], 'int32'), table: tf.tensor2d([1, 2, 3, 4, 5, 6], [3, 2]) });
    expect([...(await y.data())]).toEqual([3, 4, Number.NaN, Number.NaN, Number.NaN, Number.NaN]);
  }));

test('embedding errors name the op, what was expected and what came', () => {
  const [ids, table] = [tf.zeros([2], 'int32'), tf.zeros([3, 2])];
  expect(() => embedding({ ids: tf.zeros([2]), table })).toThrow('embedding: ids must be int32, got float32');
  expect(() => embedding({ ids, table: tf.zeros([3, 2], 'int32') })).toThrow(
    'embedding: table must be float32, got int32',
  );
  expect(() => embedding({ ids, table: tf.zeros([3]) })).toThrow('embedding: table must have shape [*,*], got [3]');
  expect(() => embedding({ ids, table: undefined as unknown as tf.Tensor })).toThrow('embedding: table is required');
  expect(() => embedding({ ids, table }, { form: 'chunk' as Form })).toThrow(
    "form must be one of 'auto', 'plain', got 'chunk'",
  );
});
