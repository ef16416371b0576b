import { expect, test } from 'vitest';
import { agreement, disagreement } from '../../bench/agreement.js';
import { gruUnits } from '../../bench/train/gru.js';

test('agreement compares as far as both go, up to a limit', () => {
  expect(agreement([1, 2, 3], [1, 2.5], 20)).toEqual({ worst: 0.5, compared: 2 });
  expect(agreement([1, 2, 3], [1, 2, 4], 2)).toEqual({ worst: 0, compared: 2 });
  expect(agreement([], [1], 20)).toEqual({ worst: 0, compared: 0 });
});

test('disagreement refuses what differs, what is NaN, and what was not compared', () => {
  const refusal = (ours: number[], theirs: number[]) => disagreement(agreement(ours, theirs, 20), 'loss', 1e-3);
  expect(refusal([5.5, 4.2], [5.5005, 4.2])).toBeUndefined();
  expect(refusal([5.5, 4.2], [5.5, 4.22])).toBe(
    'its loss differs from ours by 0.020 (more than 0.001): not the same work',
  );
  expect(refusal([5.5, 4.2], [5.5, Number.NaN])).toContain('differs from ours by NaN');
  expect(refusal([5.5], [])).toContain('no loss to compare');
});

test('the GRU has about as many parameters as asked for', () => {
  const units = gruUnits(5_230_976, 256);
  const count = 3 * units * (256 + units) + 6 * units ** 2 + 256 * units;
  expect(Math.abs(count / 5_230_976 - 1)).toBeLessThan(2e-3);
});
