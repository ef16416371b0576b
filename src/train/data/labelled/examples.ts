/** Labelled sequences, wherever they come from. */

export interface Example {
  /** Tokens [T] (Int32Array), or numbers [T * channels] (Float32Array). */
  x: Int32Array | Float32Array;
  /** A class, or numbers. */
  y: number | Float32Array;
  /** Time since the step before [T], in steps of training data; absent where all are 1. */
  intervals?: Float32Array;
}

/** A list of examples; a generated one may be without end. */
export interface Examples {
  /** How many there are; Infinity for fresh ones without end. */
  size: number;
  /** A pure function of the number. */
  read(index: number): Example;
}

/** What a model must fit. */
export interface ExampleKind {
  /** Numbers at a step; 0: tokens. */
  channels: number;
  /** Token ids, where steps are tokens. */
  vocabSize?: number;
  /** Classes; undefined where labels are numbers. */
  classes?: number;
  /** Numbers of a label; undefined where it is a class. */
  targets?: number;
  /** Examples have `intervals`. */
  timed?: boolean;
}

/** All parts of a set. */
export interface ExampleSet {
  kind: ExampleKind;
  train: Examples;
  validation?: Examples;
  test?: Examples;
  /** One line that says what there is. */
  summary: string;
  /** What the examples depend on, to be hashed: the text of settings, or the numbers themselves. */
  identity: readonly (string | ArrayBufferView)[];
}

export type Part = 'train' | 'validation' | 'test';

/** A list in memory. */
export const listed = (examples: readonly Example[]): Examples => ({
  size: examples.length,
  read: (index) => examples[index],
});
