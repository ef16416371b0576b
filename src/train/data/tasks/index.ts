/** Generated tasks by their settings. A new task adds a schema to `schema.ts` and a line here. */
import type { Lenient } from '../../../config/schemaWalk.js';
import { mqar, mqarIds, mqarLength } from './mqar.js';
import type { TaskSource } from './schema.js';
import type { Task } from './task.js';
import { parity, s3 } from './wordProblem.js';

export { TaskReader, type TaskReaderOptions } from './reader.js';
export { isTask, type MqarSource, type TaskSource, taskSchemas } from './schema.js';
export type { Task } from './task.js';

/** The task of training examples, or of held-out ones where these differ. */
export function createTask(source: TaskSource, part: 'train' | 'validation' = 'train'): Task {
  if (source.type === 'parity') return parity();
  if (source.type === 's3') return s3(source);
  const { numPairs, valNumPairs = numPairs } = source;
  return mqar({ ...source, numPairs: part === 'train' ? numPairs : valNumPairs });
}

/** The ids a task needs; undefined when its settings are wrong by themselves. */
export function taskVocabSize(source: Lenient<TaskSource>): number | undefined {
  return source.type === 'mqar' ? source.vocabSize : createTask(source as TaskSource).vocabSize;
}

/** Settings of a task that do not go together: [the one to change, what is wrong]. Undefined parts are wrong by themselves. */
export function taskRules(source: Lenient<TaskSource>, seqLen: number | undefined): [key: string, fault: string][] {
  if (source.type !== 'mqar') return [];
  const { vocabSize, numPairs, valNumPairs, valSeqLen = seqLen, keyTokens = 1, keyIds } = source;
  const keys = (keyIds ?? Math.floor((vocabSize ?? 0) / 2) - 1) ** keyTokens;
  if (keys > 2 ** 32) return [['keyTokens', `keys must be at most 2^32 different ones, got ${keys}: lower keyIds too`]];
  const parts = [
    { key: 'numPairs', pairs: numPairs, length: seqLen },
    { key: valNumPairs ? 'valNumPairs' : 'valSeqLen', pairs: valNumPairs ?? numPairs, length: valSeqLen },
  ];
  return parts.flatMap(({ key, pairs, length }): [string, string][] => {
    const most = Math.max(0, ...[pairs].flat().map((n) => n ?? 0));
    const [tokens, ids] = [mqarLength(most, source), mqarIds(most, source)];
    const lone = key === 'valSeqLen' && length === seqLen; // said of numPairs already
    if (!lone && length && tokens > length)
      return [[key, `${most} pairs need examples of at least ${tokens} tokens, got ${length}`]];
    if (!lone && keyIds && keyIds ** keyTokens < most)
      return [['keyIds', `${most} pairs need as many keys, got ${keyIds ** keyTokens}`]];
    if (!lone && vocabSize && ids > vocabSize)
      return [['vocabSize', `${most} pairs need ${ids} ids, got ${vocabSize}`]];
    return [];
  });
}
