/** Sequences of the user's files as a set of examples that fits a model. */
import type { SequenceConfig } from '../../../models/index.js';
import { Rng } from '../../../rng.js';
import { DataError } from '../errors.js';
import { type Example, type ExampleSet, listed, type Part } from './examples.js';
import { type RawExample, readExamples } from './files.js';
import type { SequenceFilesSource } from './schema.js';

/**
 * Examples of `files` in a fixed random order, cut as for `valFiles` and `testFiles` where these are not given.
 * @throws DataError when a file or an example does not fit
 */
export async function fileSet(
  source: SequenceFilesSource,
  model: SequenceConfig,
  valFraction: number,
  baseDir?: string,
): Promise<ExampleSet> {
  const read = async (files: readonly string[] | undefined) =>
    files && (await readExamples(files, baseDir)).map((raw) => fitted(raw, model));
  const given = { validation: await read(source.valFiles), test: await read(source.testFiles) };
  const all = (await read(source.files)) as Example[];
  const order = new Rng('labelled sequences').permutation(all.length);
  const shares = { validation: given.validation ? 0 : valFraction, test: given.test ? 0 : source.testFraction };
  const [validation, test] = [shares.validation, shares.test].map((share) => Math.round(share * all.length));
  const shuffled = Array.from(order, (i) => all[i]);
  const end = all.length - validation - test;
  if (end < 1)
    throw new DataError(`data: ${all.length} sequences leave none for training; give more, or smaller shares`);
  const sets: Record<Part, Example[]> = {
    train: shuffled.slice(0, end),
    validation: given.validation ?? shuffled.slice(end, end + validation),
    test: given.test ?? shuffled.slice(end + validation),
  };
  const n = (part: Part) => sets[part].length.toLocaleString('en');
  const everything = Object.values(sets).flat();
  return {
    kind: kindOf(
      model,
      everything.some(({ intervals }) => intervals),
    ),
    train: listed(sets.train),
    ...(sets.validation.length && { validation: listed(sets.validation) }),
    ...(sets.test.length && { test: listed(sets.test) }),
    summary: `sequences: ${n('train')} for training, ${n('validation')} for validation, ${n('test')} for the test`,
    identity: [
      JSON.stringify(Object.values(sets).map(({ length }) => length)),
      ...everything.flatMap(({ x, y, intervals }) => [x, JSON.stringify(y), ...(intervals ? [intervals] : [])]),
    ],
  };
}

/** What examples of files are, once they fit a model. */
export function kindOf(model: SequenceConfig, timed: boolean) {
  const { inputSize: channels = 0, vocabSize } = model;
  const labels =
    model.modelType === 'sequence_classifier' ? { classes: model.numClasses } : { targets: model.numTargets };
  return { channels, ...(vocabSize !== undefined && { vocabSize }), ...labels, timed };
}

/** @param labelled false: the label may be missing, and is then a 0 @throws DataError naming file and line */
export function fitted(raw: RawExample, model: SequenceConfig, labelled = true): Example {
  return {
    x: inputsOf(raw, model),
    y: labelled || raw.y !== undefined ? labelOf(raw, model) : 0,
    ...(raw.dt && { intervals: Float32Array.from(raw.dt) }),
  };
}

function inputsOf({ x, channels, place }: RawExample, { inputSize, vocabSize }: SequenceConfig): Example['x'] {
  const wanted = inputSize ?? 1;
  if (channels !== wanted)
    throw new DataError(
      `data: ${place}: the model takes ${inputSize === undefined ? 'a token' : `${wanted} numbers`} a step, got ${channels} numbers; set model.inputSize`,
    );
  if (vocabSize === undefined) return Float32Array.from(x);
  const bad = x.find((token) => !Number.isInteger(token) || token < 0 || token >= vocabSize);
  if (bad === undefined) return Int32Array.from(x);
  throw new DataError(`data: ${place}: tokens must be integers from 0 to ${vocabSize - 1}, got ${bad}`);
}

function labelOf({ y, place }: RawExample, model: SequenceConfig): Example['y'] {
  if (model.modelType === 'sequence_classifier') {
    if (typeof y === 'number' && Number.isInteger(y) && y >= 0 && y < model.numClasses) return y;
    throw new DataError(
      `data: ${place}: y must be a class from 0 to ${model.numClasses - 1}, got ${JSON.stringify(y) ?? 'nothing'}`,
    );
  }
  const numbers = y === undefined ? [] : [y].flat();
  if (numbers.length === model.numTargets) return Float32Array.from(numbers);
  throw new DataError(
    `data: ${place}: y must be ${model.numTargets} numbers, got ${JSON.stringify(y) ?? 'nothing'}; set model.numTargets`,
  );
}
