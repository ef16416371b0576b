/** The delta rules against stored vectors (float64 references), in every form, on wasm and cpu: outputs, final state and every gradient. */
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { chunkQuantities as deltaQuantities } from '../../src/chunked/delta/chunk.js';
import { unitLowerInverse } from '../../src/chunked/delta/solve.js';
import { chunkQuantities as dplrQuantities } from '../../src/chunked/dplr/chunk.js';
import { type DeltaOptions, deltaRule, dplr, gatedDeltaRule, kda } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { runOp, type Tensors } from '../support/goldenRuns.js';
import { expectClose } from '../support/tensors.js';

const ops = { delta_rule: deltaRule, gated_delta_rule: gatedDeltaRule, kda, dplr };

describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
  beforeAll(() => useBackend(backend));

  describe.each(goldenEntries(...Object.keys(ops)))('$file', (entry) => {
    test.each(['auto', 'chunk', 'recurrent'] as const)('%s', (form) => replay(entry, { form }));
    test('chunks of 16', () => replay(entry, { form: 'chunk', chunkSize: 16 }));
  });

  test('what a chunk of kda is made of', () => {
    const [entry, file] = internals('kda_internals');
    const { q, k, v, g, beta } = file;
    const x = deltaQuantities({ q, k, v, beta, g });
    const inverse = unitLowerInverse(tf.mul(beta, x.A));
    const M = tf.mul(inverse, tf.transpose(beta, [0, 2, 1]));
    expectGolden(entry, file, { A_kk: x.A, P_qk: x.P, T_inv: inverse, M, W: x.W, U: x.U });
  });

  test('what a chunk of dplr is made of', () => {
    const [entry, file] = internals('dplr_internals');
    const { q, k, v, a, b, g } = file;
    const x = dplrQuantities({ q, k, v, a, b, g });
    const scores = { A_qk: x.Aqk, A_qb: x.Aqb, A_ak: x.Aak, A_ab: x.Aab };
    expectGolden(entry, file, { ...scores, T_inv: unitLowerInverse(tf.neg(x.Aab)), W: x.W, U: x.U });
  });
});

function replay(entry: GoldenEntry, options: DeltaOptions): void {
  const file = readGolden(entry.file);
  const got = runOp(ops[entry.op as keyof typeof ops] as typeof dplr, entry.config, file, options);
  expect(Object.keys(got).sort()).toEqual(Object.keys(entry.tolerances).sort());
  expectGolden(entry, file, got);
}

/** A file of one chunk of one head, its tensors with an axis of chunks before them. */
function internals(op: string): [GoldenEntry, Tensors] {
  const [entry] = goldenEntries(op);
  const file = Object.entries(readGolden(entry.file));
  return [entry, Object.fromEntries(file.map(([name, x]) => [name, tf.expandDims(x, 0)]))];
}

function expectGolden({ tolerances }: GoldenEntry, file: Tensors, got: Tensors): void {
  for (const [name, x] of Object.entries(got)) {
    const { max_abs, max_ref } = tolerances[name];
    expectClose(name, x, file[name], max_abs / Math.max(1, max_ref));
  }
}
