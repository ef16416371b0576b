/** Gated KalmaNet against stored vectors (float64 references), in every form, on wasm and cpu: outputs, final states and every gradient. */
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { layoutOf } from '../../src/chunked/chunks.js';
import { chunkMatrices, chunkParts } from '../../src/chunked/gatedKalmaNet/chunk.js';
import { fusedQueries } from '../../src/chunked/gatedKalmaNet/fused.js';
import { type SolveOptions, solveQueries } from '../../src/chunked/gatedKalmaNet/run.js';
import { type GatedKalmaNetOptions, gatedKalmaNet } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { gatedKalmaNetOracle } from '../oracle/gatedKalmaNet.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { runGatedKalmaNet, type Tensors } from '../support/goldenRuns.js';
import { expectClose, outputsAndGrads, values } from '../support/tensors.js';

const solvers = { chebyshev: 'cheb', exact: 'exact' } as const;
type Solver = keyof typeof solvers;
const ways = [
  ['auto', { form: 'auto' }],
  ['chunk', { form: 'chunk' }],
  ['chunks of 16', { form: 'chunk', chunkSize: 16 }],
  ['recurrent', { form: 'recurrent' }],
] as const;

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));

  describe.each(goldenEntries('gka_op'))('$file', (entry) => {
    describe.each(Object.keys(solvers) as Solver[])('%s', (solver) => {
      test.each(ways)('%s', (_, options) => replay(entry, { ...options, solver }));
    });
  });

  describe.each(goldenEntries('gka_solve'))('$file', (entry) => {
    describe.each(Object.keys(solvers) as Solver[])('%s', (solver) => {
      test.each(ways)('%s', (_, { form, ...more }) => replaySolve(entry, { chunkSize: 64, ...more, form, solver }));
    });

    test('norms, from chunks of 16 and 64', () => {
      const file = readGolden(entry.file);
      const [B, T, H] = file.k.shape;
      for (const chunkSize of [16, 64]) {
        const layout = layoutOf(B, T, H, chunkSize);
        const { parts } = chunkParts({ k: file.k, g: file.g, kk: file.initial_h }, layout);
        const norms = tf.sqrt(chunkMatrices(parts).squaredNorms());
        const rows = norms.reshape([B, layout.N, H, layout.slots]).slice([0, 0, 0, 0], [B, layout.N, H, layout.C]);
        const fro = tf
          .transpose(rows, [0, 1, 3, 2])
          .reshape([B, layout.N * layout.C, H])
          .slice([0, 0, 0], [B, T, H]);
        expectGolden(entry, file, { fro, lambda: tf.mul(fro, Number(entry.config.ridge_ratio)) });
      }
    });
  });
});

describe.each(goldenEntries('gka_op', 'gka_solve'))('the oracle: $file', ({ file: name, op, config }) => {
  test.each(Object.keys(solvers) as Solver[])('%s', (solver) => {
    const file = readGolden(name);
    const plain = Object.fromEntries(Object.entries(file).map(([key, x]) => [key, values(x)]));
    const [B, T, H, K] = file.q.shape;
    const V = file.v?.shape[3] ?? K;
    const unused = { v: new Float64Array(B * T * H * V), alpha: new Float64Array(B * T * H) };
    const { q, k, g, v = unused.v, alpha = unused.alpha } = plain;
    const got = gatedKalmaNetOracle(
      { q, k, v, g, alpha, kk: plain.initial_h, kv: plain.initial_u },
      { B, T, H, K, V },
      { solver, scale: config.scale ? Number(config.scale) : 0, ridgeRatio: Number(config.ridge_ratio) },
      { dO: plain.do, dX: plain.dx, dKk: plain.d_final_h, dKv: plain.d_final_u },
    );
    const suffix = solvers[solver];
    const dq = op === 'gka_solve' && { [`x_${suffix}`]: got.x, fro: got.f };
    const rest = op === 'gka_op' && { [`o_${suffix}`]: got.o, final_u: got.finalKv, [`dv_${suffix}`]: got.dv };
    const states = { final_h: got.finalKk, [`d_initial_h_${suffix}`]: got.dInitialKk, d_initial_u: got.dInitialKv };
    const inputs = { [`dq_${suffix}`]: got.dq, [`dk_${suffix}`]: got.dk, [`dg_${suffix}`]: got.dg };
    const all = { ...dq, ...rest, ...states, ...inputs, [`dalpha_${suffix}`]: got.dalpha };
    const stored = Object.entries(all).filter(([key]) => plain[key] && isOf(solver, key));
    for (const [key, x] of stored) expectClose(key, x, plain[key], 1e-7);
  });
});

/** The gradient on the values' state is stored once, for the iteration. */
const isOf = (solver: Solver, name: string) => solver === 'chebyshev' || name !== 'd_initial_u';

function replay(entry: GoldenEntry, options: GatedKalmaNetOptions & { solver: Solver }): void {
  const file = readGolden(entry.file);
  const got = runGatedKalmaNet(gatedKalmaNet, entry.config, file, options);
  expectGolden(entry, file, named(got, options.solver, entry));
}

/** The solutions themselves, and the gradients of them and of the last matrix; with lambda as a constant too. */
function replaySolve(
  entry: GoldenEntry,
  options: Omit<SolveOptions, 'numIterations' | 'ridgeRatio' | 'lambdaGradient'>,
) {
  const { file: name, config } = entry;
  const file = readGolden(name);
  const ridge = { numIterations: Number(config.num_iter), ridgeRatio: Number(config.ridge_ratio) };
  const inputs: Tensors = { q: file.q, k: file.k, g: file.g, ...(file.initial_h && { kk: file.initial_h }) };
  for (const lambdaGradient of options.solver === 'exact' ? [true] : [true, false]) {
    const run = (x: Tensors) => {
      const solve = { ...options, ...ridge, lambdaGradient };
      const isFused = options.form === 'auto' && options.solver === 'chebyshev' && tf.getBackend() === 'wasm';
      const alpha = tf.onesLike(file.g); // of the kernel's queries nothing is then left but the solutions
      const { o, finalState } = isFused
        ? fusedQueries({ ...x, alpha } as never, solve)
        : solveQueries(x as never, solve);
      return [o, finalState];
    };
    const { outputs, grads } = outputsAndGrads(run, inputs, [file.dx, file.d_final_h]);
    const { q, k, g, kk } = grads;
    if (lambdaGradient) {
      const all = { x: outputs[0], final_h: outputs[1], dq: q, dk: k, dg: g, ...(kk && { d_initial_h: kk }) };
      expectGolden(entry, file, named(all, options.solver, entry));
    } else expectGolden(entry, file, { dk_cheb_nolambda: k, dg_cheb_nolambda: g });
  }
}

/** By the file's names: those that depend on the solver end with it. */
function named(got: Tensors, solver: Solver, { tolerances }: GoldenEntry): Tensors {
  const entries = Object.entries(got).map(([name, x]): [string, tf.Tensor] => {
    return [name in tolerances ? name : `${name}_${solvers[solver]}`, x];
  });
  const stored = entries.filter(([name]) => name in tolerances && isOf(solver, name));
  expect(entries.length - stored.length, 'results that are not stored').toBeLessThanOrEqual(solver === 'exact' ? 2 : 0);
  return Object.fromEntries(stored);
}

function expectGolden({ tolerances }: GoldenEntry, file: Tensors, got: Tensors): void {
  for (const [name, x] of Object.entries(got)) {
    const { max_abs, max_ref } = tolerances[name];
    expectClose(name, x, file[name], max_abs / Math.max(1, max_ref));
  }
}
