/** What the training loop asks of each kind of model: the loss of a batch, and figures over many. */
import type * as tf from '@tensorflow/tfjs';
import type { TrainableModel } from '../../models/index.js';
import type { Rng } from '../../rng.js';
import type { AnyBatch } from '../data/batch.js';

/** A batch scored: what a worker sends. */
export interface Score {
  /** Mean loss per target: nats, of a regressor squared error. */
  nats: number;
  /** Targets that were the likeliest token or class; absent where only the loss was asked for, and of regressors. */
  hits?: number;
  /** Of a regressor: the sum of squared errors of each target. */
  squares?: number[];
}

/** Figures of a part of the data. */
export interface Evaluation {
  /** Mean loss: nats per token or sequence scored, of a regressor squared error per number. */
  loss: number;
  /** Bits per byte of the text that the tokens stand for; absent when they stand for none. */
  bpb?: number;
  /** Share of the targets that were the likeliest token or class; of generated tasks and classifiers. */
  accuracy?: number;
  /** Root of the mean squared error over all numbers of a regressor. */
  rmse?: number;
  /** Share of the variance of the numbers that a regressor explains: 1 - squared error / squared distance from their mean. */
  r2?: number;
  /** Tokens scored: all but the first of each text, which nothing predicts. Of a task those that are asked for. */
  tokens?: number;
  /** Sequences scored, of classifiers and regressors. */
  sequences?: number;
}

/** The figure by which evaluations are compared. */
export interface Figure {
  key: 'bpb' | 'loss' | 'accuracy';
  value: number;
}

/** Sums over batches, in float64. */
export interface Tally<B extends AnyBatch = AnyBatch> {
  add(batch: B, score: Score): void;
  /** @throws RangeError when nothing was added */
  result(): Evaluation;
}

export interface Objective<M extends TrainableModel = TrainableModel, B extends AnyBatch = AnyBatch> {
  /** What is counted in a batch. */
  unit: 'tokens' | 'sequences';
  /** Mean loss per target, inside a tidy. `training` is given in training only. */
  loss(model: M, batch: B, options: { recompute?: boolean; training?: Rng }): tf.Scalar;
  /** @param withHits all figures, not the loss alone */
  score(model: M, batch: B, withHits: boolean): Promise<Score>;
  /** @param bytesPerToken of text; undefined where tokens stand for none */
  tally(bytesPerToken: number | undefined): Tally<B>;
}
