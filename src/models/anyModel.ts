/** Which class a config is of. */
import type { AnyModelConfig } from './anyConfig.js';
import { CausalLM } from './causalLM.js';
import { SequenceClassifier } from './sequence/classifier.js';
import { SequenceRegressor } from './sequence/regressor.js';
import type { NamedArrays } from './trainableModel.js';

export type AnyModel = CausalLM | SequenceClassifier | SequenceRegressor;

/** The model of a complete config. @param options as each class takes them */
export function createAnyModel(
  config: AnyModelConfig,
  options: { seed?: number | string; weights?: NamedArrays } = {},
): AnyModel {
  switch (config.modelType) {
    case 'sequence_classifier':
      return new SequenceClassifier(config, options);
    case 'sequence_regressor':
      return new SequenceRegressor(config, options);
    default:
      return new CausalLM(config, options);
  }
}
