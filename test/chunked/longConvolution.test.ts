import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type LongConvolutionInputs, longConvolution } from '../../src/chunked/index.js';
import { longConvolutionOracle } from '../oracle/longConvolution.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
type Inputs = LongConvolutionInputs & Record<string, tf.Tensor>;

interface Case {
  B: number;
  T: number;
  H: number;
  both: boolean;
  seed: number;
}

const cases = (longest: number): fc.Arbitrary<Case> =>
  fc.record({
    B: fc.integer({ min: 1, max: 3 }),
    T: fc.oneof(
      fc.integer({ min: 1, max: 9 }),
      fc.constantFrom(...[16, 17, 31, 32, 33, 64, 97, 127, 128, 129].filter((T) => T <= longest)),
      fc.integer({ min: 1, max: longest }),
    ),
    H: fc.oneof(fc.constantFrom(4, 8, 16), fc.integer({ min: 1, max: 18 })),
    both: fc.boolean(),
    seed: fc.integer({ min: 0, max: 1e6 }),
  });

function draw({ B, T, H, both, seed }: Case): { inputs: Inputs; gY: tf.Tensor } {
  const [u, kernel, kernelReverse, gY] = randomTensors(seed, [B, T, H], [H, T], [H, T], [B, T, H]);
  return { inputs: { u, kernel, ...(both && { kernelReverse }) } as Inputs, gY };
}

/** Largest error relative to the norms behind a sum: that is what an FFT's rounding is relative to. */
function expectOracle(c: Case, { inputs, gY }: ReturnType<typeof draw>, form: 'auto' | 'plain') {
  const { outputs, grads } = outputsAndGrads((x: Inputs) => [longConvolution(x, { form })], inputs, [gY]);
  const arrays = Object.fromEntries(Object.entries(inputs).map(([name, x]) => [name, values(x)]));
  const want = longConvolutionOracle(arrays as { u: Float32Array; kernel: Float32Array }, c, values(gY));
  const scale = Math.sqrt(c.T);
  expectClose('y', outputs[0], want.y, 1e-6, scale);
  expectClose('gU', grads.u, want.gU, 1e-6, scale);
  expectClose('gKernel', grads.kernel, want.gKernel, 1e-6, scale);
  if (c.both) expectClose('gKernelReverse', grads.kernelReverse as tf.Tensor, want.gKernelReverse, 1e-6, scale);
}

describe.each(forms)('longConvolution, %s form', (form) => {
  test('equals the oracle in the output and every gradient', () => {
    fc.assert(
      fc.property(cases(form === 'auto' ? 300 : 40), (c) => {
        tf.tidy(() => expectOracle(c, draw(c), form));
      }),
      { numRuns: 60 },
    );
  });

  test('is linear in u and shifts with it', () => {
    tf.tidy(() => {
      const { inputs } = draw({ B: 1, T: 40, H: 5, both: false, seed: 3 });
      const { u, kernel } = inputs;
      const y = longConvolution({ u, kernel }, { form });
      const later = longConvolution(
        {
          u: tf.pad(tf.slice(u, [0, 0, 0], [1, 33, 5]), [
            [0, 0],
            [7, 0],
            [0, 0],
          ]),
          kernel,
        },
        { form },
      );
      expectClose('shifted', tf.slice(later, [0, 7, 0], [1, 33, 5]), tf.slice(y, [0, 0, 0], [1, 33, 5]), 1e-6, 6);
      expectClose('nothing before', tf.slice(later, [0, 0, 0], [1, 7, 5]), Array(35).fill(0), 1e-6, 6);
    });
  });

  test('leaves no tensor behind', () => {
    const { inputs, gY } = draw({ B: 2, T: 20, H: 5, both: true, seed: 1 });
    const before = tf.memory().numTensors;
    tf.tidy(() => void outputsAndGrads((x: Inputs) => [longConvolution(x, { form })], inputs, [gY]));
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([inputs as unknown as tf.NamedTensorMap, gY]);
  });
});

test.each([
  [1024, 8],
  [2048, 3],
  [4096, 2],
])('T = %i, both directions: larger than a pass holds', (T, H) => {
  tf.tidy(() => {
    const c = { B: 1, T, H, both: true, seed: 5 };
    expectOracle(c, draw(c), 'auto');
  });
});

test('a NaN in one channel leaves the other transforms alone', () => {
  tf.tidy(() => {
    const u = tf.ones([1, 20, 16]);
    const spot = tf.scatterND(tf.tensor2d([[0, 3, 9]], [1, 3], 'int32'), tf.tensor1d([Number.NaN]), [1, 20, 16]);
    const y = values(longConvolution({ u: tf.add(u, spot), kernel: tf.ones([16, 20]) }));
    const channels = Array.from({ length: 16 }, (_, h) => Number.isNaN(y[19 * 16 + h]));
    expect(channels.flatMap((bad, h) => (bad ? [h] : []))).toEqual([9, 13]);
  });
});

test('errors name the op, what was expected and what came', () => {
  const [u, kernel] = [tf.ones([2, 5, 3]), tf.ones([3, 5])];
  const fail = (inputs: Partial<LongConvolutionInputs>, message: string, options = {}) =>
    expect(() => longConvolution({ u, kernel, ...inputs }, options)).toThrow(message);
  fail({ u: tf.ones([5, 3]) }, 'longConvolution: u must have shape [*,*,*], got [5,3]');
  fail({ kernel: tf.ones([5, 3]) }, 'longConvolution: kernel must have shape [3,5], got [5,3]');
  fail({ kernelReverse: tf.ones([3, 4]) }, 'longConvolution: kernelReverse must have shape [3,5], got [3,4]');
  fail({ u: tf.ones([2, 5, 3], 'int32') }, 'longConvolution: u must be float32, got int32');
  fail({ u: tf.ones([2, 0, 3]), kernel: tf.ones([3, 0]) }, 'longConvolution: needs a token, got T = 0');
  fail({ kernel: undefined }, 'longConvolution: kernel is required');
  fail({}, "longConvolution: form must be one of 'auto', 'plain', got 'chunk'", { form: 'chunk' });
});
