import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { learningRate } from '../../src/train/schedule.js';

const base = { lr: 1e-3, minLrRatio: 0.1, warmupSteps: 10, steps: 110, decaySteps: 20 };

describe('learningRate', () => {
  test('warms up linearly and never starts at zero', () => {
    expect(learningRate(0, { ...base, schedule: 'cosine' })).toBeCloseTo(1e-4, 12);
    expect(learningRate(9, { ...base, schedule: 'cosine' })).toBeCloseTo(1e-3, 12);
  });

  test('cosine: half way down in the middle, the minimum at the last step', () => {
    expect(learningRate(10, { ...base, schedule: 'cosine' })).toBeCloseTo(1e-3, 12);
    expect(learningRate(59.5, { ...base, schedule: 'cosine' })).toBeCloseTo(5.5e-4, 9);
    expect(learningRate(109, { ...base, schedule: 'cosine' })).toBeCloseTo(1e-4, 12);
  });

  test('wsd: flat until the decay, then linear to the minimum', () => {
    expect(learningRate(89, { ...base, schedule: 'wsd' })).toBeCloseTo(1e-3, 12);
    expect(learningRate(99.5, { ...base, schedule: 'wsd' })).toBeCloseTo(5.5e-4, 9);
    expect(learningRate(109, { ...base, schedule: 'wsd' })).toBeCloseTo(1e-4, 12);
  });

  test('constant stays, and no schedule needs a warm-up', () => {
    expect(learningRate(109, { ...base, schedule: 'constant' })).toBe(1e-3);
    expect(learningRate(0, { ...base, warmupSteps: 0, schedule: 'cosine' })).toBe(1e-3);
  });

  test('halveAt: half of every schedule from that share of the steps on, to the end', () => {
    for (const schedule of ['cosine', 'wsd', 'constant'] as const) {
      const whole = (step: number) => learningRate(step, { ...base, schedule });
      const halved = (step: number) => learningRate(step, { ...base, schedule, halveAt: 0.5 });
      for (const step of [0, 9, 54]) expect(halved(step)).toBe(whole(step)); // of 110
      for (const step of [55, 80, 109]) expect(halved(step)).toBe(whole(step) / 2);
    }
    const published = { ...base, schedule: 'cosine', warmupSteps: 0, minLrRatio: 0, halveAt: 0.5, steps: 101 } as const;
    expect(learningRate(50, published)).toBeCloseTo(5e-4, 12);
    expect(learningRate(51, published)).toBeCloseTo(2.4215e-4, 7);
  });

  test('property: between 0 and lr, and never rising after the warm-up', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('cosine' as const, 'wsd' as const, 'constant' as const),
        fc.integer({ min: 1, max: 200 }),
        fc.nat(50),
        fc.option(fc.double({ min: 0.01, max: 0.99, noNaN: true }), { nil: undefined }),
        (schedule, steps, warmupSteps, halveAt) => {
          const options = {
            ...base,
            schedule,
            steps: steps + warmupSteps,
            warmupSteps,
            halveAt,
            decaySteps: Math.floor(steps / 2),
          };
          let last = Number.POSITIVE_INFINITY;
          for (let step = warmupSteps; step < options.steps; step++) {
            const now = learningRate(step, options);
            expect(now).toBeGreaterThan(0);
            expect(now).toBeLessThanOrEqual(Math.min(last, options.lr) + 1e-15);
            last = now;
          }
        },
      ),
    );
  });
});
