/** Stored vectors of FlashBias (float64 references): outputs, lse and all gradients, down to slopes, points and weights, in all forms. */
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  alibi,
  alibiSlopes,
  denseBias,
  factorError,
  factorizeBias,
  networkFactors,
  squaredDistance,
  t5Bucket,
  t5Matrices,
} from '../../src/bias/index.js';
import { flashAttention, flashBias, multiplicativeBias } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { formsOn, useForm } from '../support/attentionForms.js';
import { type GoldenEntry, goldenEntries, readGolden, readGoldenNumbers } from '../support/golden.js';
import { inScope, type Tensors } from '../support/opProperties.js';
import { expectClose, outputsAndGrads, values } from '../support/tensors.js';

type Form = 'auto' | 'plain';
type Attention = (
  x: Tensors,
  options: { scale: number; causal: boolean; form: Form },
) => { o: tf.Tensor; lse: tf.Tensor };

/** The files have (batch, heads, T, dim). */
const swap = (x: tf.Tensor) => tf.transpose(x, x.rank === 4 ? [0, 2, 1, 3] : [0, 2, 1]);
const qkv = ({ q, k, v }: Tensors) => ({ q: swap(q), k: swap(k), v: swap(v) });

/** By the `op` of the file: attention from its inputs. */
const attentions: Record<string, Attention> = {
  flashbias_alibi: (x, options) =>
    flashBias({ ...qkv(x), ...alibi({ slopes: x.slopes, queries: x.q.shape[2] as number }) }, options),
  flashbias_generic: (x, options) => flashBias({ ...qkv(x), phiQ: swap(x.phi_q), phiK: swap(x.phi_k) }, options),
  flashbias_sqdist: (x, options) =>
    flashBias({ ...qkv(x), ...squaredDistance({ x: x.pos_q, y: x.pos_k, weight: swap(x.weight) }) }, options),
  flashbias_mult: (x, options) => multiplicativeBias({ ...qkv(x), phiQ: swap(x.phi_q), phiK: swap(x.phi_k) }, options),
  flashbias_neural: (x, options) => flashBias({ ...qkv(x), ...networks(x) }, options),
};

const network = (x: Tensors, which: 'q' | 'k') =>
  [0, 1, 2].map((n) => x[`mlp_${which}.W${n}`]) as unknown as Parameters<typeof networkFactors>[1];
const networks = (x: Tensors) => ({
  phiQ: networkFactors(x.x_q, network(x, 'q'), x.q.shape[1] as number),
  phiK: networkFactors(x.x_k, network(x, 'k'), x.q.shape[1] as number),
});

function expectStored(entry: GoldenEntry, name: string, got: tf.Tensor, want: tf.Tensor): void {
  const { max_abs, max_ref } = entry.tolerances[name];
  expect(got.shape, `${entry.file}: ${name}`).toEqual(want.shape);
  const largest = Math.max(max_ref, Number.MIN_VALUE);
  expectClose(`${entry.file}: ${name}`, values(got), values(want), max_abs / largest, 0);
}

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each(goldenEntries(...Object.keys(attentions)))('$file', (entry) => {
    describe.each(formsOn(backend))('%s', (name) => {
      const form = useForm(name);
      test('equals what is stored', () => inScope(() => replay(entry, form)));
    });
  });

  test.each(goldenEntries('flashbias_neural'))('$file: factors, the loss of a fit and its gradients', (entry) =>
    inScope(() => {
      const file = readGolden(entry.file);
      const factors = networks(file);
      expectStored(entry, 'phi_q', swap(factors.phiQ), file.phi_q);
      expectStored(entry, 'phi_k', swap(factors.phiK), file.phi_k);
      const weights = Object.fromEntries(Object.entries(file).filter(([name]) => name.startsWith('mlp_')));
      const run = (x: Tensors) => [factorError(networks({ ...file, ...x }), file.bias_target)];
      const { outputs, grads } = outputsAndGrads(run, weights, [tf.scalar(1)]);
      expectStored(entry, 'fit_mse', outputs[0].reshape([1]), file.fit_mse);
      for (const [name, gradient] of Object.entries(grads))
        expectStored(entry, `gradfit_${name}`, gradient, file[`gradfit_${name}`]);
    }),
  );
});

function replay(entry: GoldenEntry, form: Form): void {
  const file = readGolden(entry.file);
  const options = {
    scale: Number(entry.config.softmax_scale),
    causal: entry.config.causal === 'True',
    form,
  };
  const stored = Object.keys(entry.outputs).filter((name) => name.startsWith('grad_'));
  const inputs = Object.fromEntries(stored.map((name) => [name.slice(5), file[name.slice(5)]]));
  const run = (x: Tensors) => {
    const { o, lse } = attentions[entry.op]({ ...file, ...x }, options);
    return [swap(o), swap(lse)];
  };
  const { outputs, grads } = outputsAndGrads(run, inputs, [file.gy, undefined]);
  expectStored(entry, 'out', outputs[0], file.out);
  expectStored(entry, 'lse', outputs[1], file.lse);
  expect(stored.length).toBeGreaterThan(0);
  for (const name of stored) expectStored(entry, name, grads[name.slice(5)], file[name]);
}

describe.each(goldenEntries('flashbias_svd'))('$file', (entry) => {
  const file = readGoldenNumbers(entry.file);
  const N = Number(entry.config.N);
  const [buckets, H] = file.table.shape;
  const table = Array.from({ length: buckets }, (_, n) => Array.from(file.table.data.subarray(n * H, (n + 1) * H)));
  const options = { numBuckets: buckets, maxDistance: Number(entry.config.max_distance), bidirectional: true };
  const matrices = t5Matrices(table, { queries: N }, options);

  test('buckets and bias', () => {
    const got = Array.from({ length: N * N }, (_, n) => t5Bucket((n % N) - Math.floor(n / N), options));
    expect(got).toEqual(Array.from(file.bucket.data));
    expectClose('bias', matrices.flat(2), file.bias.data, entry.tolerances.bias.rel);
  });

  test('singular values, energies, ranks', async () => {
    const { errors, phiQ, phiK } = await factorizeBias(matrices, { energy: 0.99 });
    const sigma = errors.flatMap(({ singularValues }) => Array.from(singularValues));
    expectClose('singular values', sigma, file.singular_values.data, entry.tolerances.singular_values.rel);
    expect(errors.map(({ rank }) => rank)).toEqual(Array.from(file.rank_for_99pct.data));
    for (const [h, { rank, energy }] of errors.entries())
      expectClose('energy', [energy], [file.energy_cum.data[h * N + rank - 1]], entry.tolerances.energy_cum.rel);
    tf.dispose([phiQ, phiK]);
  });

  test('the bias of rank 16, and attention with it and with the dense one', async () => {
    const { phiQ, phiK } = await factorizeBias(matrices, { rank: Number(entry.config.rank) });
    inScope(() => {
      const tensors = readGolden(entry.file);
      const scale = Number(entry.config.softmax_scale);
      const dense = denseBias({ phiQ, phiK });
      expectStored(entry, 'bias_rankR', dense.reshape([H, N, N]), tensors.bias_rankR);
      const low = flashBias({ ...qkv(tensors), phiQ, phiK }, { scale, causal: false });
      expectStored(entry, 'out_rankR', swap(low.o), tensors.out_rankR);
      expectStored(entry, 'lse_rankR', swap(low.lse), tensors.lse_rankR);
      const bias = tf.tensor4d([matrices]);
      const full = flashAttention({ ...qkv(tensors), bias }, { scale, causal: false });
      expectStored(entry, 'out_full', swap(full.o), tensors.out_full);
      expectStored(entry, 'lse_full', swap(full.lse), tensors.lse_full);
    });
    tf.dispose([phiQ, phiK]);
  });
});

test('slopes of the stored file are those of the formula', () => {
  const [entry] = goldenEntries('flashbias_alibi');
  const { slopes } = readGoldenNumbers(entry.file);
  expectClose('slopes', alibiSlopes(slopes.shape[0]), slopes.data, 1e-7);
});
