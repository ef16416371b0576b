/** The linear scan: stored vectors, long sums, hard factors, cost of a step, errors. */
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { type LinearScanInputs, type LinearScanOptions, linearScan } from '../../src/chunked/index.js';
import { installedKernels } from '../../src/chunked/wasm/runtime.js';
import { useBackend } from '../../src/index.js';
import { linearScanOracle } from '../oracle/linearScan.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, normal, outputsAndGrads, values } from '../support/tensors.js';

type Form = LinearScanOptions['form'];
const forms: Form[] = ['auto', 'chunk', 'scan', 'recurrent'];

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));

  const close = ({ tolerances }: GoldenEntry, name: string, got: tf.Tensor, want: tf.Tensor) => {
    const { max_abs, max_ref } = tolerances[name];
    expectClose(name, got, want, max_abs / Math.max(1, max_ref));
  };

  describe.each(goldenEntries('hgrn'))('$file', (entry) => {
    const names = { a: 'f', b: 'x', initialState: 'initial_state' } as const;
    const replay = (form: Form, logs: boolean) =>
      inScope(() => {
        const file = readGolden(entry.file);
        const inputs: Record<string, tf.Tensor> = { [logs ? 'g' : 'a']: logs ? tf.log(file.f) : file.f, b: file.x };
        if (file.initial_state) inputs.initialState = file.initial_state;
        const run = (x: object) => {
          const { o, finalState } = linearScan(x as LinearScanInputs, { form });
          return [o, finalState];
        };
        const { outputs, grads } = outputsAndGrads(run, inputs, [file.do, file.d_final_state]);
        close(entry, 'o', outputs[0], file.o);
        close(entry, 'final_state', outputs[1], file.final_state);
        close(entry, 'dx', grads.b, file.dx);
        if (logs) close(entry, 'dlogf', grads.g, file.dlogf);
        else close(entry, 'df', grads.a, file.df);
        if (file.initial_state) close(entry, `d_${names.initialState}`, grads.initialState, file.d_initial_state);
      });
    test.each(forms)('%s', (form) => replay(form, false));
    test.each(forms)('%s, logarithms', (form) => replay(form, true));
  });

  describe.each(goldenEntries('s5_scan'))('$file', (entry) => {
    test.each(forms)('%s', (form) =>
      inScope(() => {
        const file = readGolden(entry.file);
        const swapped = (x: tf.Tensor) => tf.transpose(x, [1, 0, 2, 3]); // the file has time first
        const run = (x: object) => [linearScan(x as LinearScanInputs, { form }).o];
        const { outputs, grads } = outputsAndGrads(run, { a: swapped(file.a), b: swapped(file.b) }, [swapped(file.gx)]);
        close(entry, 'x', swapped(outputs[0]), file.x);
        close(entry, 'grad_a', swapped(grads.a), file.grad_a);
        close(entry, 'grad_b', swapped(grads.b), file.grad_b);
      }),
    );
  });

  test.each(forms)('%s: a closed gate forgets an infinity of nothing: no NaN in outputs or gradients', (form) =>
    inScope(() => {
      const g = tf.tensor([0, Number.NEGATIVE_INFINITY, -1000, 0, Number.NEGATIVE_INFINITY, 0], [1, 6, 1]);
      const b = tf.tensor([1, 2, 3, 4, 5, 6], [1, 6, 1]);
      const run = (x: object) => [linearScan(x as LinearScanInputs, { form, chunkSize: 4 }).o];
      const { outputs, grads } = outputsAndGrads(run, { g, b }, [tf.ones([1, 6, 1])]);
      expect(Array.from(values(outputs[0]))).toEqual([1, 2, 3, 7, 5, 11]);
      expect(Array.from(values(grads.g))).toEqual([0, 0, 0, 3, 0, 5]);
      expect(Array.from(values(grads.b))).toEqual([1, 1, 2, 1, 2, 1]);
    }),
  );
});

describe('the kernel', () => {
  beforeAll(() => useBackend('wasm'));

  test('the gradient of a factor that 200,000 tokens share keeps its digits', () =>
    inScope(() => {
      const [B, T, D] = [1, 200_000, 3];
      const inputs = {
        a: tf.tensor1d([0.5, -0.3, 0.9]),
        b: tf.tensor(
          normal(1, T * D).map((x) => x + 1),
          [B, T, D],
        ),
      };
      const dO = tf.ones([B, T, D]);
      const { grads } = outputsAndGrads((x) => [linearScan(x).o], inputs, [dO]);
      const { da } = linearScanOracle(
        { a: values(inputs.a), b: values(inputs.b) },
        { B, T, D },
        {},
        { dO: values(dO) },
      );
      const error = Math.max(...Array.from(da, (x, i) => Math.abs(values(grads.a)[i] / x - 1)));
      expect(error).toBeLessThan(1e-6); // one float32 sum is off by 5e-6
    }));

  test('a token costs the same after any number of tokens: one kernel call on rows of its own', () =>
    inScope(() => {
      const kernels = installedKernels() as NonNullable<ReturnType<typeof installedKernels>>;
      const spy = vi.spyOn(kernels, 'linearScanFwd');
      try {
        const [a, b, initialState] = [tf.ones([5, 2]), tf.ones([2, 1, 5, 2]), tf.ones([2, 5, 2])];
        linearScan({ a, b, initialState });
        expect(spy).toHaveBeenCalledTimes(1);
      } finally {
        spy.mockRestore();
      }
    }));
});

describe('errors name the op, what was expected and what came', () => {
  const [a, b, pairs] = [
    [2, 3, 4],
    [2, 3, 4],
    [2, 3, 4, 2],
  ];
  test.each<[string, Record<string, number[]>, object, string]>([
    ['no factor', { b }, {}, 'give either a, the factors, or g, their logarithms; got neither'],
    ['two factors', { a, g: a, b }, {}, 'give either a, the factors, or g, their logarithms; got both'],
    ['no b', { a }, {}, 'b is required, got undefined'],
    ['rank', { a, b: [2, 3] }, {}, 'b must have shape [*,*,*], got [2,3]'],
    ['pairs', { a, b: [2, 3, 4, 3] }, {}, 'b must have shape [*,*,*,2], got [2,3,4,3]'],
    ['a', { a: [3], b }, {}, 'a must have shape [2,3,4] or [4], got [3]'],
    ['g', { g: [2, 3], b }, {}, 'g must have shape [2,3,4] or [4], got [2,3]'],
    ['real factors of pairs', { a, b: pairs }, {}, 'a must have shape [2,3,4,2] or [4,2], got [2,3,4]'],
    ['logarithms of pairs', { g: pairs, b: pairs }, {}, 'g is for real b; give complex factors as a'],
    ['empty', { a: [0], b: [1, 2, 0] }, {}, 'b must not be empty, got [1,2,0]'],
    ['state', { a, b, initialState: [4] }, {}, 'initialState must have shape [2,4], got [4]'],
    ['form', { a, b }, { form: 'fast' }, "form must be one of 'auto', 'chunk', 'scan', 'recurrent', got 'fast'"],
    ['chunkSize', { a, b }, { chunkSize: 0 }, 'chunkSize must be a positive integer, got 0'],
    ['offsets', { a, b }, { cuSeqlens: Int32Array.of(0, 3) }, 'cuSeqlens needs a batch of 1'],
  ])('%s', (_, shapes, options, message) => {
    inScope(() => {
      const inputs = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, tf.zeros(shape)]));
      expect(() => linearScan(inputs as unknown as LinearScanInputs, options)).toThrow(`linearScan: ${message}`);
    });
  });

  test('dtype', () =>
    inScope(() => {
      const call = () => linearScan({ a: tf.zeros([4]), b: tf.zeros([2, 3, 4], 'int32') });
      expect(call).toThrow('linearScan: b must be float32, got int32');
    }));
});
