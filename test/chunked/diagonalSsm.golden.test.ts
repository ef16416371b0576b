/** Stored vectors of S4D (float64 references): kernels of all spectra, outputs, final states and all gradients, in every form. */
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type DiagonalSsmForm, type DiagonalSsmOptions, diagonalSsm } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { inScope, type Tensors } from '../support/opProperties.js';
import { expectClose, outputsAndGrads } from '../support/tensors.js';

const forms: DiagonalSsmForm[] = ['auto', 'conv', 'chunk', 'recurrent', 'scan'];

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each(goldenEntries('s4d_conv'))('$file', (entry) => {
    test.each(forms)('%s', (form) => inScope(() => replay(entry, { form })));
    test('chunks of 7', () => inScope(() => replay(entry, { form: 'chunk', chunkSize: 7 })));
  });

  describe.each(goldenEntries('s4d_kernel'))('$file', (entry) => {
    const names = Object.keys(entry.outputs);
    test.each(names)('%s is the answer to an impulse', (name) => inScope(() => impulse(entry, name)));
  });
});

/** dt and a from the parameters as stored. */
function modes({ log_dt, log_A_real, A_real, A_imag }: Tensors): { dt: tf.Tensor; a: tf.Tensor } {
  const decay = log_A_real ? tf.exp(log_A_real) : tf.add(tf.relu(A_real), 1e-4);
  return {
    dt: tf.exp(log_dt),
    a: tf.concat(
      [tf.neg(decay), A_imag].map((x) => tf.expandDims(x, 2)),
      2,
    ),
  };
}

function replay(entry: GoldenEntry, options: DiagonalSsmOptions): void {
  const file = readGolden(entry.file);
  const { gy, ...inputs } = Object.fromEntries(Object.keys(entry.inputs).map((name) => [name, file[name]]));
  const run = (x: Tensors) => {
    const { B: b, C: c, D: d, C_rev: cReverse, x0: initialState, u } = x;
    const discretisation = entry.config.disc as 'zoh';
    const { o, finalState } = diagonalSsm(
      { u, ...modes(x), b, c, d, cReverse, initialState },
      { discretisation, ...options },
    );
    return finalState ? [o, finalState] : [o];
  };
  const { outputs, grads } = outputsAndGrads(run, inputs, [gy]);
  const got: Tensors = { y: outputs[0], ...(outputs[1] && { state_final: outputs[1] }) };
  for (const [name, gradient] of Object.entries(grads)) got[`grad_${name}`] = gradient;
  const stored = Object.keys(entry.outputs).filter((name) => !name.startsWith('K'));
  expect(Object.keys(got).sort()).toEqual(stored.sort());
  for (const [name, x] of Object.entries(got)) expectStored(entry, options.form as string, name, x, file[name]);
}

/** u = 1, 0, 0, ...: o is the kernel, T tokens of all channels. */
function impulse(entry: GoldenEntry, name: string): void {
  const file = readGolden(entry.file);
  const [kind, rule] = name.split('.K_');
  const own = Object.fromEntries(
    Object.entries(file).flatMap(([key, x]) => (key.startsWith(`${kind}.`) ? [[key.slice(kind.length + 1), x]] : [])),
  );
  const [H, T] = file[name].shape;
  const u = tf.concat([tf.ones([1, 1, H]), tf.zeros([1, (T as number) - 1, H])], 1);
  const given = { u, ...modes(own), b: own.B, c: own.C };
  for (const form of forms) {
    const { o } = diagonalSsm(given, { discretisation: rule as 'zoh', form });
    expectStored(entry, form, name, tf.transpose(o.reshape([T as number, H])), file[name]);
  }
}

/**
 * The stored bounds hold but for one gradient: the recurrence multiplies by exp(zeta) as rounded to float32, 50 times over, which comes to 1.30 of the
 * bound (cpu) and 1.18 (wasm). Rounding zeta to float32, as all forms do, comes to 0.94 of it, and dt, an input here, to 0.23.
 */
const OVER: Record<string, number> = { 'recurrent s4d_conv_zoh_legs.safetensors grad_log_A_real': 1.35 };

function expectStored(
  { file, tolerances }: GoldenEntry,
  form: string,
  name: string,
  got: tf.Tensor,
  want: tf.Tensor,
): void {
  const { max_abs, max_ref } = tolerances[name];
  const bound = (OVER[`${form} ${file} ${name}`] ?? 1) * max_abs;
  expectClose(name, got, want, bound / Math.max(1, max_ref));
}
