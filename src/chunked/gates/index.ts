/** Forget gates from the raw output of a projection; all but that of MLGRU in log space. */
export { type KdaGateInputs, type KdaGateOptions, kdaGate } from './kdaGate.js';
export { type LogSigmoidGateOptions, logSigmoidGate } from './logSigmoidGate.js';
export { type MlgruGateInputs, type MlgruGateOptions, type MlgruGateOutput, mlgruGate } from './mlgruGate.js';
