/** Forget gates in log space, from the raw output of a projection. */
export { type KdaGateInputs, type KdaGateOptions, kdaGate } from './kdaGate.js';
export { type LogSigmoidGateOptions, logSigmoidGate } from './logSigmoidGate.js';
