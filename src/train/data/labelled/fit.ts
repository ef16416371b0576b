/** Whether a model fits the examples of a source. No Node, no TensorFlow.js. */
import type { ExampleKind } from './examples.js';

/** What of a model's config decides it; undefined parts are wrong by themselves. */
interface Fitting {
  modelType?: string;
  inputSize?: number;
  vocabSize?: number;
  numClasses?: number;
  numTargets?: number;
}

/** Why a model cannot be trained on such examples: [its setting, what is wrong]. */
export function modelFaults(model: Fitting, kind: ExampleKind): [key: string, fault: string][] {
  const { vocabSize, inputSize = vocabSize === undefined ? 1 : undefined } = model;
  const wanted = kind.classes === undefined ? 'sequence_regressor' : 'sequence_classifier';
  if (model.modelType !== wanted)
    return [['modelType', `the data need "${wanted}", got ${JSON.stringify(model.modelType ?? 'causal_lm')}`]];
  const faults: [string, string][] = [];
  if (kind.vocabSize !== undefined && vocabSize === undefined)
    faults.push(['vocabSize', `steps are tokens: set it to ${kind.vocabSize} in place of inputSize`]);
  else if (kind.vocabSize !== undefined && vocabSize !== undefined && vocabSize < kind.vocabSize)
    faults.push(['vocabSize', `must be at least the ${kind.vocabSize} tokens of the data, got ${vocabSize}`]);
  if (kind.channels > 0 && inputSize !== kind.channels)
    faults.push([
      'inputSize',
      `must be ${kind.channels}, the numbers at a step of the data, got ${inputSize ?? 'tokens'}`,
    ]);
  if (kind.classes !== undefined && model.numClasses !== undefined && model.numClasses < kind.classes)
    faults.push(['numClasses', `must be at least the ${kind.classes} classes of the data, got ${model.numClasses}`]);
  if (kind.targets !== undefined && model.numTargets !== undefined && model.numTargets !== kind.targets)
    faults.push(['numTargets', `must be ${kind.targets}, the numbers of a label, got ${model.numTargets}`]);
  return faults;
}
