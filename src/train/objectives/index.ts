/** Which objective a model is trained by. */
import { CausalLM, SequenceClassifier, type TrainableModel } from '../../models/index.js';
import { classes } from './classes.js';
import { nextTokens } from './nextTokens.js';
import { numbers } from './numbers.js';
import type { Evaluation, Figure, Objective } from './objective.js';

export type { Evaluation, Figure, Objective, Score } from './objective.js';

export function objectiveOf(model: TrainableModel): Objective {
  if (model instanceof CausalLM) return nextTokens as Objective;
  return (model instanceof SequenceClassifier ? classes : numbers) as unknown as Objective;
}

/** The figure of an evaluation that counts: bits per byte of text, of a classifier its accuracy, else the loss. */
export function figureOf({ bpb, accuracy, sequences, loss }: Evaluation): Figure {
  if (bpb !== undefined) return { key: 'bpb', value: bpb };
  return sequences !== undefined && accuracy !== undefined
    ? { key: 'accuracy', value: accuracy }
    : { key: 'loss', value: loss };
}

/** Of accuracies the larger is better, of all else the smaller. */
export const isBetter = ({ key, value }: Figure, than: number): boolean =>
  key === 'accuracy' ? value > than : value < than;
