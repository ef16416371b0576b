import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { discretise } from '../../src/chunked/index.js';
import { S5, type S5Options } from '../../src/layers/index.js';
import { Rng } from '../../src/rng.js';
import { layerGrads } from '../support/layerGrads.js';
import { describeLayer, savedAndLoaded } from '../support/layerProperties.js';
import { anyDocuments, inScope, timeSlice } from '../support/opProperties.js';
import { expectClose, normal, randomTensors, values } from '../support/tensors.js';

const small = { hiddenSize: 6, stateSize: 8, blocks: 2 };
const s5 = (options: object = {}) => new S5({ ...small, ...options });

const cases: Partial<S5Options>[] = [
  { gate: 'full_glu' },
  { gate: 'half_glu1', discretisation: 'bilinear', cInit: 'lecun', bInit: 'hippo' },
  { gate: 'half_glu2', conjugate: false, cInit: 'complexNormal', parameterGroups: 'BandCdecay' },
  { gate: 'gelu', clipEigs: true, chunkSize: 4, ssmLearningRate: { A: 1e-4, B: null, dt: 0 } },
  { gate: 'none', ptd: { method: 'random', epsAbs: 0.3, seed: 4 }, blocks: 1, form: 'scan', ssmLearningRate: null },
];
for (const options of cases)
  describeLayer({ title: `S5 ${JSON.stringify(options)}`, make: (extra) => s5({ ...options, ...extra }) });

describe('bidirectional', () => {
  const both = (options: object = {}) => s5({ bidirectional: true, name: 'probe', ...options });

  test('is the sum of two layers, one of which reads the reversed sequence, whose feed-through is 0', () =>
    inScope(() => {
      const layer = both({ gate: 'none' });
      const [forwards, backwards] = ['C1', 'C2'].map((c) => {
        const one = s5({ gate: 'none' });
        const all = layer.weightsByName();
        one.buildWith((name) => {
          const source = all.get(name === 'C' ? c : name) as tf.Variable;
          return (c === 'C2' && name === 'D' ? tf.zerosLike(source) : source).dataSync() as Float32Array;
        });
        return one;
      });
      const [x] = randomTensors(1, [2, 11, 6]);
      const reversed = tf.reverse(backwards.forward(tf.reverse(x, 1)).y, 1);
      expectClose('y', layer.forward(x).y, tf.add(forwards.forward(x).y, reversed), 1e-6);
      for (const used of [layer, forwards, backwards]) used.dispose();
    }));

  test('packed documents equal each alone', () =>
    fc.assert(
      fc.property(anyDocuments(), fc.nat(1e6), (cuSeqlens, seed) =>
        inScope(() => {
          const layer = both();
          const N = cuSeqlens.length - 1;
          const x = tf.tensor(normal(seed, cuSeqlens[N] * 6), [1, cuSeqlens[N], 6]);
          const parts = Array.from(
            { length: N },
            (_, n) => layer.forward(timeSlice(x, cuSeqlens[n], cuSeqlens[n + 1])).y,
          );
          expectClose('y', layer.forward(x, undefined, { cuSeqlens }).y, tf.concat(parts, 1), 1e-5);
          layer.dispose();
        }),
      ),
      { numRuns: 10 },
    ));

  test('has no state, and says so', () =>
    inScope(() => {
      const layer = both();
      const [x] = randomTensors(2, [1, 3, 6]);
      expect(layer.forward(x).state).toEqual({});
      expect(layer.stateSize(4)).toBe(0);
      expect(() => layer.forward(x, { x: tf.zeros([1, 4, 2]) })).toThrow(
        'S5 "probe": a bidirectional layer reads the whole sequence at once and takes no state; give all tokens in one call, or set bidirectional to false',
      );
    }));

  test.each(['lecun', 'complexNormal'] as const)('%s: survives a saved model; C as published', async (cInit) => {
    const layer = both({ cInit });
    const names = Object.entries(layer.weightSpecs()).flatMap(([name, { shape }]) =>
      name.startsWith('C') ? [[name, shape]] : [],
    );
    expect(names).toEqual(
      cInit === 'lecun'
        ? [
            ['C1', [6, 4, 2]],
            ['C2', [6, 4, 2]],
          ]
        : [['C', [6, 8, 2]]],
    );
    const input = tf.input({ shape: [null, 6] });
    const model = tf.model({ inputs: input, outputs: layer.apply(input) as tf.SymbolicTensor });
    const loaded = await savedAndLoaded(model);
    inScope(() => {
      const [x] = randomTensors(3, [2, 5, 6]);
      const [want, got] = [model, loaded].map((m) => Array.from(values(m.predict(x) as tf.Tensor)));
      expect(got).toEqual(want);
    });
    model.dispose();
    loaded.dispose();
  });
});

describe('intervals', () => {
  const T = 9;
  const withIntervals = (layer: S5, intervals: tf.Tensor) =>
    layerGrads(layer, randomTensors(5, [2, T, 6])[0], {
      run: (x, state) => layer.forward(x, state, { intervals }),
    });

  test.each([
    { discretisation: 'zoh' },
    { discretisation: 'bilinear', bidirectional: true },
    { discretisation: 'zoh', clipEigs: true, conjugate: false },
  ])('of 1 change nothing, in outputs, state and gradients: %j', (options) =>
    inScope(() => {
      const layer = s5({ ...options, name: 'probe' });
      const want = layerGrads(layer, randomTensors(5, [2, T, 6])[0]);
      const got = withIntervals(layer, tf.ones([2, T]));
      for (const [name, x] of Object.entries(want.outputs)) expectClose(name, got.outputs[name], x, 1e-5);
      for (const [name, x] of Object.entries(want.grads)) expectClose(name, got.grads[name], x, 1e-5);
      layer.dispose();
    }),
  );

  test('of 2 are steps of twice the length', () =>
    inScope(() => {
      const [layer, slow] = [s5({ name: 'probe' }), s5({ name: 'probe' })];
      const step = slow.weightsByName().get('log_step') as tf.Variable;
      step.assign(tf.add(step, Math.log(2)));
      const [x] = randomTensors(6, [1, T, 6]);
      const got = layer.forward(x, undefined, { intervals: tf.fill([1, T], 2) });
      expectClose('y', got.y, slow.forward(x).y, 1e-5);
      layer.dispose();
      slow.dispose();
    }));

  test('of 0 leave the state as it is', () =>
    inScope(() => {
      const layer = s5();
      const [x, state] = randomTensors(7, [1, T, 6], [1, 4, 2]);
      const got = layer.forward(x, { x: state }, { intervals: tf.zeros([1, T]) });
      expectClose('state', got.state.x, state, 0);
      layer.dispose();
    }));

  test('that do not fit are refused', () =>
    inScope(() => {
      const [x] = randomTensors(8, [1, T, 6]);
      expect(() => s5().forward(x, undefined, { intervals: tf.ones([1, T + 1]) })).toThrow(
        `irregularScan: intervals must have shape [1,${T}], got [1,${T + 1}]`,
      );
    }));
});

test('any start is stable: no mode grows, and a long sequence stays bounded', () => {
  const starts = fc.record({
    blocks: fc.constantFrom(1, 2),
    conjugate: fc.boolean(),
    bInit: fc.constantFrom('lecun', 'hippo'),
    cInit: fc.constantFrom('truncated', 'lecun', 'complexNormal'),
    discretisation: fc.constantFrom('zoh', 'bilinear'),
    seed: fc.nat(1e6),
    ptd: fc.oneof(
      fc.constant(null),
      fc.record({
        method: fc.constant('skew'),
        epsRel: fc.double({ min: 1e-3, max: 10, noNaN: true }),
        seed: fc.nat(1e6),
      }),
      fc.record({
        method: fc.constant('random'),
        epsRel: fc.double({ min: 1e-3, max: 1, noNaN: true }),
        seed: fc.nat(1e6),
        unstable: fc.constant('clip'),
      }),
    ),
  });
  fc.assert(
    fc.property(starts, fc.constantFrom(4, 16, 32), (options, stateSize) =>
      inScope(() => {
        const layer = s5({ ...options, stateSize, gate: 'none' });
        const [re, im, logStep] = ['Lambda_re', 'Lambda_im', 'log_step'].map(
          (name) => layer.weightsByName().get(name) as tf.Tensor,
        );
        const dt = tf.exp(tf.reshape(logStep, [-1]));
        const { zeta } = discretise({ dt, a: tf.stack([re, im], 1) }, { rule: layer.options.discretisation });
        for (const [i, x] of Array.from(values(zeta)).entries()) if (i % 2 === 0) expect(x).toBeLessThan(0);
        const x = tf.ones([1, 2000, 6]);
        const { y, state } = layer.forward(x);
        const half = layer.forward(timeSlice(x, 0, 1000)).y;
        const [all, early] = [y, half].map((t) => values(tf.max(tf.abs(t)))[0]);
        expect(all).toBeLessThan(4 * early + 1);
        expect(Number.isFinite(values(tf.sum(state.x))[0])).toBe(true);
        layer.dispose();
      }),
    ),
    { numRuns: 40 },
  );
});

test('PTD: as many modes as there are, real ones included, and the layer starts with them', () =>
  inScope(() => {
    const ptd = { method: 'random', epsAbs: 0.3, seed: 4 } as const;
    const layer = s5({ stateSize: 16, blocks: 1, ptd });
    const real = Array.from(values(layer.weightsByName().get('Lambda_im') as tf.Tensor)).filter((x) => x === 0).length;
    expect(real).toBeGreaterThan(0);
    expect(layer.modes).toBe((16 - real) / 2 + real);
    expect(layer.stateSize(3)).toBe(3 * 4 * 2 * layer.modes);
  }));

test('dropout: the same features at all tokens, other ones in each sequence, none without training', () =>
  inScope(() => {
    const layer = s5({ dropout: 0.5, gate: 'none' });
    const [x] = randomTensors(9, [4, 7, 6]);
    const whole = layer.forward(x).y;
    const dropped = layer.forward(x, undefined, { training: new Rng(3) }).y;
    const ratio = Array.from(values(tf.div(dropped, whole)), (r) => Math.round(r * 1e4) / 1e4);
    for (let b = 0; b < 4; b++)
      for (let d = 0; d < 6; d++) {
        const along = Array.from({ length: 7 }, (_, t) => ratio[(b * 7 + t) * 6 + d]);
        expect([0, 2]).toContain(along[0]);
        expect(new Set(along).size).toBe(1);
      }
    expect(new Set(ratio).size).toBe(2);
    const again = layer.forward(x, undefined, { training: new Rng(3) }).y;
    expect(Array.from(values(again))).toEqual(Array.from(values(dropped)));
    layer.dispose();
  }));

test('dropout within the gates is drawn too', () =>
  inScope(() => {
    const [x] = randomTensors(10, [2, 3, 6]);
    for (const gate of ['full_glu', 'half_glu1', 'half_glu2', 'gelu']) {
      const layer = s5({ dropout: 0.3, gate });
      const outputs = [undefined, new Rng(1), new Rng(2)].map((training) =>
        Array.from(values(layer.forward(x, undefined, { training }).y)),
      );
      expect(outputs[0]).not.toEqual(outputs[1]);
      expect(outputs[1]).not.toEqual(outputs[2]);
      layer.dispose();
    }
  }));

describe('groups of the public scripts', () => {
  const rate = 1e-3;
  const slow = { learningRate: rate, decays: false };
  const global = { decays: true };
  test.each<[Partial<S5Options>, Record<string, object>]>([
    [{}, { Lambda_re: slow, Lambda_im: slow, log_step: slow, B: slow, C: global, D: global, 'out2.bias': global }],
    [{ dtGlobal: true }, { Lambda_re: slow, log_step: global, B: slow }],
    [{ parameterGroups: 'BandCdecay' }, { B: { learningRate: rate, decays: true }, C: global, log_step: slow }],
    [{ parameterGroups: 'BfastandCdecay' }, { B: global, C: global, Lambda_im: slow }],
    [{ parameterGroups: 'noBCdecay' }, { B: slow, C: slow, D: slow, 'out2.kernel': global }],
    [
      { parameterGroups: 'noBCdecay', bidirectional: true },
      { C1: slow, C2: slow },
    ],
    [{ ssmLearningRate: null }, { Lambda_re: { decays: false }, B: { decays: false }, log_step: { decays: false } }],
    [
      { ssmLearningRate: { A: 0, dt: 1e-4 } },
      {
        Lambda_re: { learningRate: 0, decays: false },
        log_step: { learningRate: 1e-4, decays: false },
        B: { decays: false },
      },
    ],
  ])('%j', (options, want) => {
    const specs = s5(options).weightSpecs();
    for (const [name, group] of Object.entries(want)) {
      const { learningRate, decays } = specs[name];
      expect({ name, decays, ...(learningRate !== undefined && { learningRate }) }).toEqual({ name, ...group });
    }
  });
});

describe('errors name the layer, what was expected and what came', () => {
  test.each<[object, string]>([
    [{ stateSize: 6, blocks: 2 }, 'stateSize must be an even multiple of blocks, got 6 and 2'],
    [{ blocks: 0 }, 'blocks must be a positive integer, got 0'],
    [{ dropout: 1 }, 'dropout must be at least 0 and below 1, got 1'],
    [{ dtMin: 0.2 }, 'needs 0 < dtMin <= dtMax, got 0.2 and 0.1'],
    [{ gate: 'glu' }, "gate must be one of 'full_glu', 'half_glu1', 'half_glu2', 'gelu', 'none', got 'glu'"],
    [{ discretisation: 'euler' }, "discretisation must be one of 'zoh', 'bilinear', got 'euler'"],
    [{ parameterGroups: 'all' }, 'parameterGroups must be one of'],
    [{ ssmLearningRate: -1 }, 'ssmLearningRate must be a number >= 0, null, or one each for A, B and dt, got -1'],
    [
      { ssmLearningRate: { C: 1 } },
      'ssmLearningRate must be a number >= 0, null, or one each for A, B and dt, got {"C":1}',
    ],
    [{ form: 'fast' }, "form must be one of 'auto', 'chunk', 'scan', 'recurrent', got 'fast'"],
    [{ chunkSize: 0 }, 'chunkSize must be a positive integer, got 0'],
  ])('%j', (options, message) => {
    expect(() => s5(options)).toThrow(`S5: ${message}`);
    expect(() => s5(options)).toThrow(RangeError);
  });
});
