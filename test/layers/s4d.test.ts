import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { S4D, type S4DOptions } from '../../src/layers/index.js';
import { Rng } from '../../src/rng.js';
import { initialS4d, ModeBasis } from '../../src/ssm/index.js';
import { diagonalSsmOracle } from '../oracle/diagonalSsm.js';
import { layerGrads } from '../support/layerGrads.js';
import { describeLayer, savedAndLoaded } from '../support/layerProperties.js';
import { inScope, timeSlice } from '../support/opProperties.js';
import { expectClose, normal, values } from '../support/tensors.js';

type Options = Partial<S4DOptions>;

const make = (options: object) => new S4D({ hiddenSize: 6, stateSize: 8, ...options });

const cases: Options[] = [
  {},
  { spectrum: 'lin', copies: 2, discretisation: 'bilinear', form: 'recurrent' },
  {
    spectrum: 'inv',
    copies: 3,
    realTransform: 'softplus',
    dtTransform: 'softplus',
    trainB: false,
    form: 'chunk',
    chunkSize: 4,
  },
  {
    spectrum: 'real',
    dtPer: 'mode',
    realTransform: 'none',
    activation: null,
    gate: null,
    cInit: 'unitParts',
    form: 'scan',
  },
  { ptd: { epsRel: 0.1 }, copies: 1, rate: 2, bandlimit: 0.7 },
];

for (const options of cases)
  describeLayer({ title: `S4D ${JSON.stringify(options)}`, make: (extra) => make({ ...options, ...extra }) });

const weightsOf = (layer: S4D) =>
  Object.fromEntries([...layer.weightsByName()].map(([name, w]) => [name, values(w)])) as Record<string, Float32Array>;

/** Makes the output projection of a layer without a gate the identity. */
function passOutputsOn(layer: S4D): void {
  const weights = layer.weightsByName();
  weights.get('output_linear.0.weight')?.assign(tf.eye(6));
  weights.get('output_linear.0.bias')?.assign(tf.zeros([6]));
}

/** What a raw weight stands for, by the published layer's options. */
const transforms = {
  exp: Math.exp,
  relu: (x: number) => Math.max(x, 0) + 1e-4,
  sigmoid: (x: number) => 1 / (1 + Math.exp(-x)),
  softplus: (x: number) => Math.log1p(Math.exp(x)),
};

test.each([
  { realTransform: 'exp', dtTransform: 'exp' },
  { realTransform: 'relu', dtTransform: 'softplus' },
  { realTransform: 'sigmoid', dtTransform: 'softplus' },
  { realTransform: 'softplus', dtTransform: 'exp' },
] as const)('weights of any sign: decays by $realTransform, steps by $dtTransform', ({ realTransform, dtTransform }) =>
  inScope(() => {
    const T = 12;
    const layer = make({ realTransform, dtTransform, activation: null, gate: null });
    passOutputsOn(layer);
    const x = tf.tensor(normal(8, T * 6), [1, T, 6]);
    const names = [
      dtTransform === 'exp' ? 'kernel.log_dt' : 'kernel.inv_dt',
      realTransform === 'exp' ? 'kernel.log_A_real' : 'kernel.A_real',
    ];
    layer.forward(x); // builds
    for (const [i, name] of names.entries()) {
      const w = layer.weightsByName().get(name) as tf.Variable;
      w.assign(tf.tensor(normal(9 + i, w.size), w.shape));
    }
    const w = weightsOf(layer);
    const dt = Array.from(w[names[0]], transforms[dtTransform]);
    const decay = Array.from(w[names[1]], transforms[realTransform]);
    const want = diagonalSsmOracle(
      {
        ...{ u: values(x), dt, a: decay.flatMap((r, i) => [-r, w['kernel.A_imag'][i]]) },
        ...{ b: w['kernel.B'], c: w['kernel.C'], d: w.D },
      },
      { B: 1, T, H: 6, M: 4, R: 6, dtPerMode: false },
    );
    expectClose('y', layer.forward(x).y, want.o, 1e-5);
    layer.dispose();
  }),
);

describe('both directions', () => {
  const both = (options: object = {}) => make({ bidirectional: true, name: 'both', ...options });

  test.each(['auto', 'conv', 'chunk', 'scan'] as const)('%s: the op of both, and no state', (form) =>
    inScope(() => {
      const T = 20;
      const layer = both({ form, activation: null, gate: null });
      const w = weightsOf(layer);
      const x = tf.tensor(normal(4, T * 6), [1, T, 6]);
      passOutputsOn(layer);
      const a = Array.from(w['kernel.log_A_real']).flatMap((r, i) => [-Math.exp(r), w['kernel.A_imag'][i]]);
      const want = diagonalSsmOracle(
        {
          ...{
            u: values(x),
            dt: Array.from(w['kernel.log_dt'], Math.exp),
            a,
            b: w['kernel.B'],
            c: w['kernel.C'],
            d: w.D,
          },
          cReverse: w['kernel.C_rev'],
        },
        { B: 1, T, H: 6, M: 4, R: 6, dtPerMode: false },
      );
      const { y, state } = layer.forward(x);
      expectClose('y', y, want.o, 1e-5);
      expect([Object.keys(state), layer.stateSize(3)]).toEqual([[], 0]);
      expect(w['kernel.C_rev']).not.toEqual(w['kernel.C']);
      layer.dispose();
    }),
  );

  test('packed documents equal each alone, and gradients reach every weight', () =>
    inScope(() => {
      const layer = both();
      const x = tf.tensor(normal(5, 13 * 6), [1, 13, 6]);
      const { y } = layer.forward(x, undefined, { cuSeqlens: Int32Array.of(0, 4, 13) });
      const alone = [timeSlice(x, 0, 4), timeSlice(x, 4, 13)].map((document) => layer.forward(document).y);
      expectClose('y', y, tf.concat(alone, 1), 1e-6);
      for (const [name, gradient] of Object.entries(layerGrads(layer, x).grads))
        expect(tf.max(tf.abs(gradient)).dataSync()[0], name).toBeGreaterThan(0);
      layer.dispose();
    }));

  test('a state is an error that says what to do', () =>
    inScope(() => {
      const layer = both();
      const x = tf.zeros([1, 3, 6]);
      expect(() => layer.forward(x, { x: tf.zeros([1, 6, 4, 2]) })).toThrow(
        'S4D "both": a bidirectional layer reads the whole sequence at once and takes no state; give all tokens in one call',
      );
      expect(() => layer.forward(x, {})).not.toThrow();
      layer.dispose();
    }));
});

describe('training', () => {
  test('dropout: channels at all tokens, drawn from the stream given, and only in training', () =>
    inScope(() => {
      const layer = make({ dropout: 0.5, gate: null, name: 'drop' });
      passOutputsOn(layer);
      const x = tf.tensor(normal(6, 2 * 9 * 6), [2, 9, 6]);
      const all = layer.forward(x).y;
      const ratio = (seed: number) => values(tf.div(layer.forward(x, undefined, { training: new Rng(seed) }).y, all));
      const [first, again, other] = [ratio(1), ratio(1), ratio(2)].map((r) => Array.from(r, (x) => Math.round(x) + 0));
      expect(first).toEqual(again);
      expect(first).not.toEqual(other);
      expect([...new Set(first)].sort()).toEqual([0, 2]);
      for (let i = 0; i < 108; i++) expect(first[i]).toBe(first[i < 54 ? i % 6 : 54 + (i % 6)]);
      layer.dispose();
    }));

  test('no state is made where none went in', () =>
    inScope(() => {
      const layer = make({ name: 'train' });
      const x = tf.tensor(normal(7, 5 * 6), [1, 5, 6]);
      const training = new Rng(0);
      expect(Object.keys(layer.forward(x, undefined, { training }).state)).toEqual([]);
      expect(Object.keys(layer.forward(x, layer.initialState(1), { training }).state)).toEqual(['x']);
      expectClose('y', layer.forward(x, undefined, { training }).y, layer.forward(x).y, 0);
      layer.dispose();
    }));

  test('steps, modes and B train at a rate of their own without decay; C and D decay', () => {
    const groups = (options: object) => {
      const specs = make(options).weightSpecs();
      return Object.fromEntries(Object.entries(specs).map(([name, s]) => [name, [s.learningRate, s.decays]]));
    };
    const common = {
      'kernel.C': [undefined, true],
      D: [undefined, true],
      'output_linear.0.bias': [undefined, undefined],
    };
    const own = (dt?: number, A?: number, B?: number) => ({
      'kernel.log_dt': [dt, false],
      'kernel.log_A_real': [A, false],
      'kernel.A_imag': [A, false],
      'kernel.B': [B, false],
    });
    expect(groups({})).toMatchObject({ ...common, ...own(1e-3, 1e-3, 1e-3) });
    expect(groups({ ssmLearningRate: { dt: null, A: 2e-3, B: 0 } })).toMatchObject({
      ...common,
      ...own(undefined, 2e-3, 0),
    });
    expect(groups({ ssmLearningRate: null })).toMatchObject(own());
  });
});

describe('the start', () => {
  test('takes a ready basis of modes in the place of one of its own', () => {
    const basis = new ModeBasis({ stateSize: 8, ptd: { epsAbs: 0.3 } });
    const { a, c } = initialS4d({ hiddenSize: 1, stateSize: 8, ptd: { epsAbs: 0.2 } }, new Rng(0), basis);
    expect(a.re).toEqual(basis.lambda.re);
    expect(c).toEqual(initialS4d({ hiddenSize: 1, stateSize: 8, ptd: { epsAbs: 0.3 } }, new Rng(0)).c);
  });

  test('is that of seqmix/ssm, through the transforms', () =>
    inScope(() => {
      for (const options of [
        {},
        { spectrum: 'inv', dtPer: 'mode' },
        { ptd: { epsAbs: 0.2 }, copies: 2 },
      ] as Options[]) {
        const layer = make({ name: 'start', ...options });
        const got = weightsOf(layer);
        const { spectrum, copies, ptd } = layer.options;
        const given = { hiddenSize: 6, stateSize: 8, spectrum, copies: copies ?? 6, ptd: ptd ?? undefined };
        const { a, modes } = initialS4d(given, new Rng(0));
        expect(modes).toBe(layer.modes);
        expectClose(
          'Re a',
          got['kernel.log_A_real'].map(Math.exp),
          a.re.map((x) => -x),
          1e-6,
        );
        expectClose('Im a', got['kernel.A_imag'], a.im, 1e-6);
        const steps = got['kernel.log_dt'].map(Math.exp);
        expect(Math.min(...steps)).toBeGreaterThan(0.99e-3);
        expect(Math.max(...steps)).toBeLessThan(0.101);
        layer.dispose();
      }
    }));

  test.each(['relu', 'none', 'sigmoid', 'softplus'] as const)(
    'realTransform %s holds a decay of 1/2',
    (realTransform) =>
      inScope(() => {
        const layer = make({ realTransform, name: 'held', spectrum: 'lin' });
        const plain = make({ name: 'held', spectrum: 'lin' });
        const x = tf.tensor(normal(8, 7 * 6), [1, 7, 6]);
        expect([...layer.weightsByName().keys()]).toContain('kernel.A_real');
        expectClose('y', layer.forward(x).y, plain.forward(x).y, realTransform === 'relu' ? 1e-3 : 1e-5);
        for (const l of [layer, plain]) l.dispose();
      }),
  );

  test('more than half as many modes where ptd leaves real ones', () => {
    const ptd = {
      method: 'given' as const,
      matrix: [
        [0, 0],
        [0, 0],
      ],
    }; // HiPPO-LegS of 2 states has modes -1 and -2
    expect(new ModeBasis({ stateSize: 2, ptd }).modes).toBe(2);
    const layer = new S4D({ hiddenSize: 3, stateSize: 2, ptd });
    expect(layer.modes).toBe(2);
    expect(layer.stateSize(1)).toBe(4 * 3 * 2 * 2);
  });

  test('a B that does not train is the start of one that does', () =>
    inScope(() => {
      const x = tf.tensor(normal(9, 5 * 6), [1, 5, 6]);
      const [trained, fixed] = [true, false].map((trainB) => make({ trainB, name: 'same' }));
      expectClose('y', fixed.forward(x).y, trained.forward(x).y, 0);
      expect([...fixed.weightsByName().keys()]).not.toContain('kernel.B');
      for (const layer of [trained, fixed]) layer.dispose();
    }));
});

test('rates by name survive a saved model', async () => {
  const rates = { A: 1e-4, B: null, dt: 2e-3 };
  const input = tf.input({ shape: [null, 6] });
  const model = tf.model({
    inputs: input,
    outputs: make({ ssmLearningRate: rates }).apply(input) as tf.SymbolicTensor,
  });
  const loaded = await savedAndLoaded(model);
  expect((loaded.layers[1] as S4D).options.ssmLearningRate).toEqual(rates);
  for (const m of [model, loaded]) m.dispose();
});

describe('errors name the layer, what was expected and what came', () => {
  test.each<[object, string]>([
    [{ stateSize: 7 }, 'stateSize must be even, got 7'],
    [{ stateSize: 0 }, 'stateSize must be a positive integer, got 0'],
    [{ copies: 4 }, 'copies must divide hiddenSize 6, got 4'],
    [{ dtMin: 0 }, 'needs 0 < dtMin <= dtMax, got 0 and 0.1'],
    [{ dropout: 1 }, 'dropout must be at least 0 and below 1, got 1'],
    [{ bandlimit: 0 }, 'bandlimit must be a number > 0 or null, got 0'],
    [{ rate: -1 }, 'rate must be a number > 0, got -1'],
    [{ activation: 'relu' }, "activation must be 'gelu' or null, got relu"],
    [{ gate: 'silu' }, "gate must be 'glu' or null, got silu"],
    [
      { spectrum: 'fourier' },
      "spectrum must be one of 'legs', 'lin', 'inv', 'inv2', 'quad', 'rand', 'real', got 'fourier'",
    ],
    [{ ptd: {}, spectrum: 'lin' }, "ptd starts from spectrum 'legs', got 'lin'"],
    [{ trainB: false, bInit: 'random' }, 'a B that does not train must not be random; set trainB or another bInit'],
    [
      { ssmLearningRate: { C: 1 } },
      'ssmLearningRate must be a number >= 0, null, or one each for A, B and dt, got {"C":1}',
    ],
    [{ form: 'parallel' }, "form must be one of 'auto', 'conv', 'chunk', 'recurrent', 'scan', got 'parallel'"],
  ])('%j', (options, message) => {
    expect(() => make(options)).toThrow(`S4D: ${message}`);
    expect(() => make(options)).toThrow(RangeError);
  });
});
