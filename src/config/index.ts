/** Configs of runs: schema, reading, overrides, errors. */
export { configFile, loadModelConfig, loadRunConfig } from './load.js';
export { ConfigError, type Problem } from './problems.js';
export { type RunConfig, resolveRunConfig } from './run.js';
export { type RunConfigInput, runConfigSchema, type TrainConfig } from './runSchema.js';
