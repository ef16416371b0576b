/** Scatterbrain against stored vectors (float64 references) in both forms, on wasm and cpu: outputs, every gradient, hashes; and the oracle too. */
import type * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ScatterbrainInputs, type ScatterbrainOptions, scatterbrain } from '../../src/chunked/index.js';
import { rotationBuckets, sortedBuckets } from '../../src/chunked/scatterbrain/hash.js';
import { useBackend } from '../../src/index.js';
import * as oracle from '../oracle/scatterbrain.js';
import { type GoldenEntry, goldenEntries } from '../support/golden.js';
import { inScope, type Tensors } from '../support/opProperties.js';
import { readScatterbrain } from '../support/scatterbrainRuns.js';
import { expectClose, outputsAndGrads, values } from '../support/tensors.js';

const hashed = goldenEntries('scatterbrain');
const local = goldenEntries('scatterbrain_local');
const [rotation] = goldenEntries('scatterbrain_rotation_hash');
const forms = ['auto', 'plain'] as const;

test('the files are there', () => {
  expect([hashed.length, local.length]).toEqual([4, 2]);
});

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each([...hashed, ...local])('$file', (entry) => {
    test.each(forms)('%s', (form) => inScope(() => replay(entry, form)));
  });
});

function replay(entry: GoldenEntry, form: 'auto' | 'plain'): void {
  const file = readScatterbrain(entry.file);
  const run = ({ q, k, v }: Tensors) => {
    const inputs = { q, k, v, projection: file.proj_W, queryBuckets: file.q_bucket, keyBuckets: file.k_bucket };
    return [scatterbrain(inputs as ScatterbrainInputs, { ...optionsOf(entry), form }).o];
  };
  const { outputs, grads } = outputsAndGrads(run, { q: file.q, k: file.k, v: file.v }, [file.gy]);
  const got: Tensors = { out: outputs[0], grad_q: grads.q, grad_k: grads.k, grad_v: grads.v };
  for (const [name, x] of Object.entries(got)) expectStored(entry, name, x, file[name]);
}

function optionsOf({ config }: GoldenEntry): ScatterbrainOptions {
  const causal = config.causal === 'True';
  const width = Number(config.local_context);
  const windowSize = causal ? Math.floor(width / 2) + 1 : width; // causal, the half before the token is left, and itself
  return { causal, softmaxTemp: Number(config.softmax_temp), ...(config.local_context && { windowSize }) };
}

function expectStored({ tolerances }: GoldenEntry, name: string, got: tf.Tensor | Float64Array, want: tf.Tensor): void {
  const { max_abs, max_ref } = tolerances[name];
  expectClose(name, got, got instanceof Float64Array ? values(want) : want, max_abs / Math.max(1, max_ref));
}

describe('the oracle', () => {
  test.each([...hashed, ...local])('$file', (entry) =>
    inScope(() => {
      const file = readScatterbrain(entry.file);
      const [B, T, H, E] = file.q.shape as number[];
      const [S, V, r] = [file.k.shape[1] as number, file.v.shape[3] as number, file.proj_W.shape[0]];
      const { causal, softmaxTemp, windowSize } = optionsOf(entry);
      const [queries, keys] = [file.q_bucket, file.k_bucket].map((x) => x && values(x));
      const rounds = (file.q_bucket?.shape[3] as number) ?? 0;
      const support: oracle.Support = (n, h, i, j) => {
        if (windowSize) return oracle.inWindow(i, j, windowSize, causal === true);
        const bucket = (x: ArrayLike<number>, L: number, t: number, round: number) =>
          x[((n * L + t) * H + h) * rounds + round];
        return [...Array(rounds).keys()].some((round) => bucket(queries, T, i, round) === bucket(keys, S, j, round));
      };
      const numbers = { q: values(file.q), k: values(file.k), v: values(file.v), projection: values(file.proj_W) };
      const options = { support, causal, softmaxTemp };
      const got = oracle.scatterbrainOracle(numbers, { B, T, S, H, E, V, r }, options, { dO: values(file.gy) });
      const named = { out: got.o, grad_q: got.dq, grad_k: got.dk, grad_v: got.dv };
      for (const [name, x] of Object.entries(named)) expectStored(entry, name, x, file[name]);
      if (file.attn)
        expectStored(entry, 'attn', Float64Array.from(got.attention.flatMap((head) => [...head])), file.attn);
    }),
  );
});

test.each(hashed)('sorted hash: the buckets of $file', ({ file: name, config }) =>
  inScope(() => {
    const file = readScatterbrain(name);
    const [B, T, H, E] = file.q.shape as number[];
    const S = file.k.shape[1] as number;
    const rounds = Number(config.n_hashes);
    const sizes = [Number(config.q_cluster_size), Number(config.k_cluster_size)] as const;
    for (let b = 0; b < B; b++)
      for (let h = 0; h < H; h++)
        for (let round = 0; round < rounds; round++) {
          const rows = (x: tf.Tensor, L: number) => ({
            x: values(x),
            starts: Int32Array.from({ length: L }, (_, t) => ((b * L + t) * H + h) * E),
          });
          const [q, k] = [rows(file.q, T), rows(file.k, S)];
          const got = sortedBuckets(q, k, E, values(file.hash_alpha), { rounds, round }, sizes);
          const want = ([x, L]: [tf.Tensor, number]) =>
            Array.from({ length: L }, (_, t) => values(x)[((b * L + t) * H + h) * rounds + round]);
          expect(got.map((x) => [...x])).toEqual(
            (
              [
                [file.q_bucket, T],
                [file.k_bucket, S],
              ] as [tf.Tensor, number][]
            ).map(want),
          );
        }
  }),
);

test('sorted hash as an option finds the same buckets, and uneven sizes of keys', () =>
  inScope(() => {
    for (const { file: name, config } of hashed.filter(({ config }) => config.causal === 'False')) {
      const file = readScatterbrain(name);
      const {
        q,
        k,
        v,
        proj_W: projection,
        q_bucket: queryBuckets,
        k_bucket: keyBuckets,
        hash_alpha: hashVectors,
      } = file;
      const given = scatterbrain({ q, k, v, projection, queryBuckets, keyBuckets }, { causal: false }).o;
      const hash = {
        type: 'sorted',
        bucketSize: Number(config.q_cluster_size),
        rounds: Number(config.n_hashes),
      } as const;
      expectClose(name, scatterbrain({ q, k, v, projection, hashVectors }, { causal: false, hash }).o, given, 0);
    }
  }));

test('rotation hash: the stored buckets', () =>
  inScope(() => {
    const { x, rotations, bucket } = readScatterbrain(rotation.file);
    const [B, T, H, E] = x.shape as number[];
    const rounds = Number(rotation.config.n_hashes);
    expect(Number(rotation.config.n_buckets)).toBe(2 * (rotations.shape[2] as number));
    const got = rotationBuckets(values(x), { B, T, H, E }, values(rotations), rounds);
    expect([...got]).toEqual([...Array.from(values(bucket))]);
    const half = rotations.shape[2] as number;
    const all = Array.from(got, (_, i) => {
      const [row, round] = [Math.floor(i / rounds), i % rounds];
      return oracle.rotationBucket(values(x), row * E, values(rotations), { E, rounds, half, round });
    });
    expect(all).toEqual([...got]);
  }));

test.each(local)('log features of $file', (entry) =>
  inScope(() => {
    const file = readScatterbrain(entry.file);
    const [E, r] = [file.q.shape[3] as number, file.proj_W.shape[0]];
    const softmaxTemp = Number(entry.config.softmax_temp);
    for (const [name, x] of [
      ['log_phi_q', file.q],
      ['log_phi_k', file.k],
    ] as const) {
      const rows = Array.from({ length: x.size / E }, (_, i) =>
        oracle.logFeatures(values(x), i * E, values(file.proj_W), { E, r, softmaxTemp }),
      );
      expectStored(entry, name, Float64Array.from(rows.flat()), file[name]);
    }
  }),
);
