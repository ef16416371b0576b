/** Models of whole sequences: a class or some numbers for each. */
export { SequenceClassifier } from './classifier.js';
export {
  type ClassifierConfig,
  type ClassifierConfigInput,
  type EncoderConfig,
  isSequenceConfig,
  type RegressorConfig,
  type RegressorConfigInput,
  resolveSequenceConfig,
  type SequenceConfig,
} from './config.js';
export {
  describeSequence,
  formatSequenceDescription,
  type SequenceDescription,
  type SequenceWeight,
} from './describe.js';
export { SequenceRegressor } from './regressor.js';
export {
  knowsTime,
  type SequenceForwardOptions,
  type SequenceInputOptions,
  SequenceModel,
  type SequenceModelOptions,
} from './sequenceModel.js';
