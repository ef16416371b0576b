/** Language models of S5 layers: config, training with checkpoints, sessions. */
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { ConfigError, resolveRunConfig } from '../../src/config/index.js';
import { CausalLM, resolveModelConfig, Session } from '../../src/models/index.js';
import { latestCheckpoint } from '../../src/train/checkpoint/index.js';
import { train } from '../../src/train/loop.js';
import { metricsOf, temporaryFolder, tinyRun, writeRun } from '../support/run.js';
import { values } from '../support/tensors.js';
import { lively, tokenIds } from './support.js';

const mixer = { type: 's5', stateSize: 8, blocks: 2 } as const;
const shape = { vocabSize: 37, hiddenSize: 16, numLayers: 2, mlp: { intermediateSize: 24 } };

test('a run learns, and keeps its checkpoints', async () => {
  const folder = temporaryFolder();
  writeRun(folder);
  const model = { hiddenSize: 8, numLayers: 2, mixers: [mixer], mlp: { intermediateSize: 8 } };
  const config = resolveRunConfig(tinyRun({ model, output: { dir: join(folder, 'run') }, train: { steps: 30 } }), {
    folder,
  });
  const before = tf.memory().numTensors;
  const { status, runDir } = await train(config, { progress: { line: () => {}, tick: () => {}, stop: () => {} } });
  expect(status).toBe('done');
  expect(tf.memory().numTensors).toBe(before);
  const metrics = metricsOf(runDir);
  expect(metrics.filter(({ kind }) => kind === 'eval').at(-1)?.bpb).toBeLessThan(0.9 * (metrics[0].bpb as number));
  expect(await latestCheckpoint(runDir)).toBeDefined();
});

test('a session that was saved goes on to the last bit', async () => {
  const model = new CausalLM({
    ...lively,
    ...shape,
    mixers: ['s5'],
    mixerDefaults: { s5: { stateSize: 16, blocks: 1 } },
  });
  const session = new Session(model);
  session.append(tokenIds(3, 29));
  session.read().dispose();
  const copy = Session.fromBytes(await session.toBytes(), model);
  const next = [session, copy].map((one) => {
    one.append(tokenIds(4, 5));
    return tf.tidy(() => Array.from(values(one.read())));
  });
  expect(next[1]).toEqual(next[0]);
  expect(next[0].every(Number.isFinite)).toBe(true);
  for (const one of [session, copy]) one.dispose();
  model.dispose();
});

test('all defaults, and the layers of one model start apart', () => {
  const { mixers } = resolveModelConfig({ ...shape, mixers: ['s5'] });
  expect(mixers[0]).toEqual({
    ...{ type: 's5', stateSize: 256, blocks: 8, conjugate: true, clipEigs: false, discretisation: 'zoh' },
    ...{ bInit: 'lecun', cInit: 'truncated', bidirectional: false, dtMin: 1e-3, dtMax: 0.1, gate: 'half_glu1' },
    ...{ dropout: 0, ptd: null, parameterGroups: 'standard', dtGlobal: false, ssmLearningRate: 1e-3 },
  });
  const model = new CausalLM({ ...shape, mixers: [mixer] });
  const [first, second] = [0, 1].map((i) =>
    Array.from(values(model.weights.get(`model.layers.${i}.attn.B`) as tf.Tensor)),
  );
  expect(first).not.toEqual(second);
  model.dispose();
});

test.each<[object, string, string]>([
  [{ stateSize: 12 }, 'stateSize', 'must be an even multiple of blocks 8, got 12'],
  [{ dtMin: 0.5 }, 'dtMin', 'must be at most dtMax 0.1, got 0.5'],
  [{ bidirectional: true }, 'bidirectional', 'must be false in a causal model, which may not look ahead'],
])('%j is refused where it stands', (options, key, message) => {
  try {
    resolveModelConfig({ ...shape, mixers: ['gla', { type: 's5', ...options }] });
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as ConfigError).problems).toEqual([{ path: `mixers[1].${key}`, message }]);
  }
});
