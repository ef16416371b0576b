import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type DiscretiseInputs, type DiscretiseOptions, discretise } from '../../src/chunked/index.js';
import { type Complex, complexes, minus } from '../oracle/complex.js';
import { discretiseOracle } from '../oracle/discretise.js';
import { expectClose, outputsAndGrads, random, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
const rules = ['zoh', 'bilinear'] as const;

/** Shapes of dt and a, and which step and which mode belong to output number i. */
interface Layout {
  dt: number[];
  a: number[];
  step: (i: number) => number;
  mode: (i: number) => number;
}

const layouts: fc.Arbitrary<Layout> = fc
  .record({
    kind: fc.constantFrom('channel', 'mode', 'token'),
    copies: fc.integer({ min: 1, max: 3 }),
    repeats: fc.integer({ min: 1, max: 3 }),
    M: fc.integer({ min: 1, max: 6 }),
  })
  .map(({ kind, copies, repeats, M }) => {
    const H = copies * repeats;
    const [step, mode] = [(i: number) => i, (i: number) => (Math.floor(i / M) % copies) * M + (i % M)];
    if (kind === 'channel') return { dt: [H], a: [copies, M, 2], step: (i: number) => Math.floor(i / M), mode };
    if (kind === 'mode') return { dt: [H, M], a: [copies, M, 2], step, mode };
    return { dt: [repeats, copies, M].slice(3 - copies), a: [M, 2], step, mode: (i) => i % M };
  });

const size = tf.util.sizeFromShape;

/** Steps from 1e-7 to 1; modes from far below 1 to a frequency, a few of them real, a few 0. */
function draw({ dt, a }: Layout, seed: number, highest: number): { dt: tf.Tensor; a: tf.Tensor } {
  const next = random(seed);
  const logUniform = (low: number, high: number) => Math.exp(Math.log(low) + next() * Math.log(high / low));
  const zero = (chance: number) => (next() < chance ? 0 : 1);
  const modes = Array.from({ length: size(a) / 2 }, () => {
    const any = zero(0.1);
    return [
      -any * logUniform(1e-3, Math.min(10, highest / 3)),
      any * zero(0.2) * (next() < 0.5 ? -1 : 1) * logUniform(1e-2, highest),
    ];
  });
  const steps = Array.from({ length: size(dt) }, () => logUniform(1e-7, 1));
  return { dt: tf.tensor(steps, dt), a: tf.tensor(modes.flat(), a) };
}

/** max |got - want| / |want| over complex numbers; `sizes` in the place of |want| where given. */
function relative(got: tf.Tensor, want: readonly Complex[], sizes = want.map((w) => Math.hypot(...w))): number {
  const errors = complexes(values(got)).map((g, i) => {
    const error = Math.hypot(...minus(g, want[i]));
    return error === 0 ? 0 : error / sizes[i];
  });
  return errors.some(Number.isNaN) ? Number.NaN : Math.max(...errors);
}

/** |got - want| up to whole turns, since only exp(l zeta) for whole l counts; relative to |got|, the angle of which is to be within half a turn. */
function modulo(got: Complex, want: Complex): number {
  expect(Math.abs(got[1])).toBeLessThan(Math.PI + 3e-7);
  const [re, im] = minus(got, want);
  const error = Math.hypot(re, im - 2 * Math.PI * Math.round(im / (2 * Math.PI)));
  return error === 0 ? 0 : error / Math.hypot(...got);
}

function compare(
  layout: Layout,
  { dt, a }: Record<'dt' | 'a', tf.Tensor>,
  options: Required<Pick<DiscretiseOptions, 'rule' | 'form'>>,
  seed: number,
) {
  const op = (all: DiscretiseInputs) => {
    const { zeta, psi } = discretise(all, options);
    return [zeta, psi];
  };
  const shape = discretise({ dt, a }, options).zeta.shape;
  const upstreams = randomTensors(seed + 1, shape, shape);
  const { outputs, grads } = outputsAndGrads(op, { dt, a } as { dt: tf.Tensor; a: tf.Tensor }, upstreams);
  const [gZeta, gPsi] = upstreams.map((g) => complexes(values(g)));
  const [modes, steps] = [complexes(values(a)), values(dt)];
  const parts = discretiseOracle(
    options.rule,
    gZeta.map((g, i) => ({ a: modes[layout.mode(i)], dt: steps[layout.step(i)], gZeta: g, gPsi: gPsi[i] })),
  );
  const gA: Complex[] = modes.map(() => [0, 0]);
  const gDt = Array.from(steps, () => 0);
  const [sizeA, sizeDt] = [modes.map(() => 0), Array.from(steps, () => 0)]; // the largest terms of sums that may cancel
  parts.forEach((part, i) => {
    const [m, s] = [layout.mode(i), layout.step(i)];
    gA[m] = [gA[m][0] + part.gA[0], gA[m][1] + part.gA[1]];
    gDt[s] += part.gDt;
    sizeA[m] += part.termsA;
    sizeDt[s] += part.termsDt;
  });
  return {
    zeta: Math.max(...parts.map(({ zeta }, i) => modulo(complexes(values(outputs[0]))[i], zeta))),
    psi: relative(
      outputs[1],
      parts.map((p) => p.psi),
    ),
    gA: relative(grads.a, gA, sizeA),
    gDt: Math.max(...gDt.map((want, i) => Math.abs(values(grads.dt)[i] - want) / sizeDt[i])),
  };
}

describe.each(rules)('discretise, %s', (rule) => {
  test('the kernel equals the oracle to float32 accuracy, mode by mode, in both outputs and both gradients', () => {
    fc.assert(
      fc.property(layouts, fc.integer({ min: 0, max: 1e6 }), (layout, seed) => {
        tf.tidy(() => {
          const got = compare(layout, draw(layout, seed, 3000), { rule, form: 'auto' }, seed);
          for (const [name, error] of Object.entries(got)) expect(error, name).toBeLessThan(1.5e-7);
        });
      }),
      { numRuns: 100 },
    );
  });

  // The plain form of the bilinear rule rounds z itself, which large ones feel near the pole.
  const ranges: [number, number][] =
    rule === 'zoh'
      ? [
          [3, 2e-6],
          [3000, 1e-5],
        ]
      : [[3, 2e-6]];
  test.each(ranges)('so does the plain form for |z| up to %d, within %d', (highest, tolerance) => {
    fc.assert(
      fc.property(layouts, fc.integer({ min: 0, max: 1e6 }), (layout, seed) => {
        tf.tidy(() => {
          const got = compare(layout, draw(layout, seed, highest), { rule, form: 'plain' }, seed);
          for (const [name, error] of Object.entries(got)) expect(error, name).toBeLessThan(tolerance);
        });
      }),
      { numRuns: 60 },
    );
  });
});

describe.each(forms)('discretise, %s form', (form) => {
  test('psi keeps its digits for |z| down to 1e-9, and is dt where a is 0', () => {
    tf.tidy(() => {
      const steps = [1e-9, 1e-6, 5e-5, 1e-3, 9.9e-3, 1.01e-2];
      const a = tf.tensor2d([
        [-0.5, 0.8],
        [-1e-3, 1],
        [0, 1],
        [-1, 0],
        [0, 0],
      ]);
      const dt = tf.tile(tf.tensor2d(steps, [steps.length, 1]), [1, 5]);
      const { psi } = discretise({ dt, a }, { form });
      const [modes, rounded] = [complexes(values(a)), values(dt)];
      const want = discretiseOracle(
        'zoh',
        Array.from(rounded, (step, i) => ({ a: modes[i % 5], dt: step, gZeta: [0, 0], gPsi: [0, 0] })),
      );
      expect(
        relative(
          psi,
          want.map((w) => w.psi),
        ),
      ).toBeLessThan(3e-7);
      for (let i = 4; i < rounded.length; i += 5) expect(values(psi)[2 * i]).toBe(rounded[i]);
    });
  });

  test('hides no NaN, and spreads none', () => {
    tf.tidy(() => {
      const a = tf.tensor2d([
        [-1, 2],
        [-1, Number.NaN],
        [-1, 2],
      ]);
      for (const rule of rules) {
        const { zeta, psi } = discretise(
          {
            dt: tf.tensor2d([
              [0.1, 0.1, 0.1],
              [0.1, 0.1, Number.NaN],
            ]),
            a,
          },
          { rule, form },
        );
        for (const x of [zeta, psi]) {
          const bad = complexes(values(x)).map(([re, im]) => Number.isNaN(re) || Number.isNaN(im));
          expect(bad).toEqual([false, true, false, false, true, true]);
        }
      }
    });
  });

  test('leaves no tensor behind', () => {
    const [dt, a, gZeta, gPsi] = randomTensors(1, [4], [2, 3, 2], [4, 3, 2], [4, 3, 2]);
    const before = tf.memory().numTensors;
    const op = (all: { dt: tf.Tensor; a: tf.Tensor }) => Object.values(discretise(all, { form }));
    tf.tidy(() => void outputsAndGrads(op, { dt, a }, [gZeta, gPsi]));
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([dt, a, gZeta, gPsi]);
  });
});

test('the gradient of shared modes over 200,000 steps keeps float32 accuracy', () => {
  tf.tidy(() => {
    const n = 200_000;
    const [a, dt] = [tf.tensor2d([[-0.5, 3]]), tf.fill([n, 1], 0.01)];
    const { grads } = outputsAndGrads((x) => [discretise({ dt, ...x }).psi], { a }, [tf.ones([n, 1, 2])]);
    const [one] = discretiseOracle('zoh', [{ a: [-0.5, 3], dt: values(dt)[0], gZeta: [0, 0], gPsi: [1, 1] }]);
    expectClose(
      'ga',
      grads.a,
      one.gA.map((g) => n * g),
      2e-7,
    );
  });
});

test('angles of 1e5 turn as they should', () => {
  tf.tidy(() => {
    const a = tf.tensor2d([
      [-1e-3, 1e5],
      [-1e-3, -99_999.5],
      [-2, 3e4],
      [-800, 1],
    ]);
    const { psi } = discretise({ dt: tf.ones([4]), a });
    const want = discretiseOracle(
      'zoh',
      complexes(values(a)).map((mode) => ({ a: mode, dt: 1, gZeta: [0, 0], gPsi: [0, 0] })),
    );
    expect(
      relative(
        psi,
        want.map((w) => w.psi),
      ),
    ).toBeLessThan(1.5e-7);
  });
});

test('errors name the op, what was expected and what came', () => {
  const a = tf.ones([2, 3, 2]);
  const fail = (inputs: DiscretiseInputs, options: DiscretiseOptions, message: string) =>
    expect(() => discretise(inputs, options)).toThrow(message);
  fail({ dt: tf.ones([4]), a: tf.ones([2, 3]) }, {}, 'discretise: a must have shape [*,2], got [2,3]');
  fail({ dt: tf.ones([4]), a: tf.ones([3, 2]) }, {}, 'discretise: dt must have shape [3], got [4]');
  fail({ dt: tf.ones([4, 2]), a }, {}, 'discretise: dt must have shape [*,3], got [4,2]');
  fail({ dt: tf.ones([3]), a }, {}, 'discretise: the 3 channels of dt must be a multiple of the 2 copies of a');
  fail({ dt: tf.ones([4], 'int32'), a }, {}, 'discretise: dt must be float32, got int32');
  fail(
    { dt: tf.ones([4]), a },
    { rule: 'euler' as 'zoh' },
    "discretise: rule must be one of 'zoh', 'bilinear', got 'euler'",
  );
  fail({ dt: tf.ones([4]), a: undefined as unknown as tf.Tensor }, {}, 'discretise: a is required');
});
