/** A look inside trained models. */
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
