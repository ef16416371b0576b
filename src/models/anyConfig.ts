/** Configs of all kinds of models: `modelType` says which, and a config without one is of a language model. */
import type { Problem } from '../config/problems.js';
import type { Path } from '../config/schemaWalk.js';
import { type ModelConfig, modelConfigSchema, modelProblems, resolveModelConfig } from './config.js';
import {
  classifierConfigSchema,
  isSequenceConfig,
  regressorConfigSchema,
  resolveSequenceConfig,
  type SequenceConfig,
  sequenceProblems,
} from './sequence/config.js';

export type AnyModelConfig = ModelConfig | SequenceConfig;

/** What the config file of any model may say. */
export const anyModelSchemas = [modelConfigSchema, classifierConfigSchema, regressorConfigSchema] as const;

/** Fills in every default. @throws ConfigError listing everything wrong with the config */
export const resolveAnyModelConfig = (raw: unknown, source?: string): AnyModelConfig =>
  isSequenceConfig(raw) ? resolveSequenceConfig(raw, source) : resolveModelConfig(raw, source);

/** Everything wrong with a config; `at` is put before each path. */
export function anyModelProblems(raw: unknown, at: Path = []): Problem[] {
  return isSequenceConfig(raw) ? sequenceProblems(raw, at) : modelProblems(raw, at).map(withKinds);
}

/** An unknown `modelType` is told all kinds there are. */
function withKinds(problem: Problem): Problem {
  if (!/(^|\.)modelType$/.test(problem.path)) return problem;
  return { ...problem, message: problem.message.replace('"causal_lm"', `one of ${KINDS}`) };
}

const KINDS = anyModelSchemas
  .map(({ shape }) => shape.modelType)
  .map((type) => JSON.stringify(('unwrap' in type ? type.unwrap() : type).value))
  .join(', ');
