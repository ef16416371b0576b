/** A look inside trained models, and at how far approximations are from what they approximate. */
export {
  type AttentionErrorOptions,
  type AttentionErrors,
  attentionErrorStudy,
  ERROR_BUDGET,
} from './attentionError.js';
export {
  type Conditioning,
  type ConditioningOptions,
  type HalfLife,
  type LayerConditioning,
  measureConditioning,
  type Spread,
} from './conditioning.js';
export { formatConditioning } from './format.js';
export { plotConditioning } from './plot.js';
