/** Labelled sequences by their settings. A new set adds a schema to `schema.ts`, a line to `kinds.ts`, and one here. Node only. */
import type { RunConfig } from '../../../config/index.js';
import type { SequenceConfig } from '../../../models/index.js';
import type { ExampleSet, Part } from './examples.js';
import { fileSet } from './fileSet.js';
import { sourceKind } from './kinds.js';
import { listops } from './listops.js';
import type { LabelledSource, ListopsSource, SinusoidsSource } from './schema.js';
import { sequentialMnist } from './sequentialMnist.js';
import { sinusoids } from './sinusoids.js';

export { addSinusoids, corrupted, type SinusoidNoise } from './corruption.js';
export type { Example, ExampleKind, ExampleSet, Examples, Part } from './examples.js';
export { fitted, kindOf } from './fileSet.js';
export { type RawExample, readExamples } from './files.js';
export { modelFaults } from './fit.js';
export { LISTOPS_TOKENS, listops } from './listops.js';
export { batchOf, LabelledReader, type LabelledReaderOptions } from './reader.js';
export { isLabelled, type LabelledSource, labelledSchemas } from './schema.js';
export { sequentialMnist } from './sequentialMnist.js';
export { sinusoids } from './sinusoids.js';

/** All parts of a source. @throws DataError when it is missing or malformed */
export async function loadExamples(
  source: LabelledSource,
  { model, data, seed }: Pick<RunConfig, 'model' | 'data' | 'seed'>,
): Promise<ExampleSet> {
  if (source.type === 'sequential-mnist') return sequentialMnist(source, data.valFraction);
  if (source.type === 'sequences') return fileSet(source, model as SequenceConfig, data.valFraction);
  return generatedSet(source, seed);
}

/** Fresh examples without end for training; those held out are of seeds of their own, the same for every run. */
function generatedSet(source: ListopsSource | SinusoidsSource, seed: number): ExampleSet {
  const part = (name: Part, own: string, size?: number) =>
    source.type === 'listops' ? listops(source, own, size) : sinusoids(source, name, own, size);
  return {
    kind: sourceKind(source) as ExampleSet['kind'],
    train: part('train', `training examples ${seed}`),
    validation: part('validation', 'held-out examples', source.valExamples),
    test: part('test', 'test examples', source.testExamples),
    summary: `fresh examples of ${JSON.stringify(source)}`,
    identity: [JSON.stringify(source)],
  };
}
