import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { dropout } from '../../src/layers/index.js';
import { Rng } from '../../src/rng.js';
import { outputsAndGrads, randomTensors, values } from '../support/tensors.js';

describe.each([true, false])('dropout, tied: %s', (tied) => {
  const draw = () => tf.ones([4, 10, 250]);

  test('drops the share it says, and scales up the rest', () => {
    const y = Array.from(values(dropout(draw(), 0.25, new Rng(1), { tied })));
    expect(new Set(y)).toEqual(new Set([0, Math.fround(1 / 0.75)]));
    const share = y.filter((v) => v === 0).length / y.length;
    const choices = tied ? 1000 : 10_000;
    expect(Math.abs(share - 0.25)).toBeLessThan(4 * Math.sqrt((0.25 * 0.75) / choices));
  });

  test('the same stream gives the same mask, another another', () => {
    const x = draw();
    const masks = [new Rng(1), new Rng(1), new Rng(2)].map((rng) => Array.from(values(dropout(x, 0.5, rng, { tied }))));
    expect(masks[1]).toEqual(masks[0]);
    expect(masks[2]).not.toEqual(masks[0]);
    const rng = new Rng(1);
    dropout(x, 0.5, rng, { tied });
    expect(rng.state().position).toBe(tied ? 1000 : 10_000);
  });

  test('the gradient goes through the kept values alone', () => {
    const [input, dy] = randomTensors(1, [2, 3, 5], [2, 3, 5]);
    const run = (all: { x: tf.Tensor }) => [dropout(all.x, 0.4, new Rng(5), { tied })];
    const { outputs, grads } = outputsAndGrads(run, { x: input }, [dy]);
    const [y, dx, v, d] = [outputs[0], grads.x, input, dy].map((t) => values(t));
    const factor = Math.fround(1 / 0.6);
    for (let i = 0; i < y.length; i++) {
      const f = y[i] === 0 ? 0 : factor;
      expect([y[i] + 0, dx[i] + 0]).toEqual([Math.fround(f * v[i]) + 0, Math.fround(f * d[i]) + 0]);
    }
  });

  test('without a stream, or with a rate of 0, y is x and nothing is drawn', () => {
    const x = draw();
    const rng = new Rng(3);
    for (const y of [dropout(x, 0.5, undefined, { tied }), dropout(x, 0, rng, { tied })])
      expect(Array.from(values(y))).toEqual(Array.from(values(x)));
    expect(rng.state().position).toBe(0);
  });

  test('leaves no tensor behind', () => {
    const x = draw();
    const before = tf.memory().numTensors;
    dropout(x, 0.5, new Rng(1), { tied }).dispose();
    dropout(x, 0.5, undefined, { tied }).dispose();
    expect(tf.memory().numTensors).toBe(before);
  });
});

test('a tied mask is the same at all times, an untied one is not', () => {
  const x = tf.ones([3, 6, 20]);
  const rows = (tied: boolean) => {
    const y = dropout(x, 0.5, new Rng(1), { tied });
    const [first, ...others] = tf.unstack(y, 1).map((t) => Array.from(values(t)).join());
    return others.filter((row) => row === first).length;
  };
  expect([rows(true), rows(false)]).toEqual([5, 0]);
  const ofBatch = tf.unstack(dropout(x, 0.5, new Rng(1), { tied: true })).map((t) => Array.from(values(t)).join());
  expect(new Set(ofBatch).size).toBe(3);
});

test('a rate of 1 or more, or below 0, is refused', () => {
  for (const rate of [1, -0.1, Number.NaN])
    expect(() => dropout(tf.ones([1, 1, 1]), rate, undefined)).toThrow(
      `dropout: rate must be at least 0 and below 1, got ${rate}`,
    );
});
