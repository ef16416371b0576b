/** What the examples of a source are, as far as its settings tell, and whether a model fits them. No Node, no TensorFlow.js. */
import type { Lenient } from '../../../config/schemaWalk.js';
import type { ExampleKind } from './examples.js';
import { LISTOPS_TOKENS, longestListops } from './listops.js';
import type { LabelledSource } from './schema.js';

/** Undefined for files: they are made to fit the model when they are read. */
export function sourceKind(source: Lenient<LabelledSource>): ExampleKind | undefined {
  switch (source.type) {
    case 'sequential-mnist':
      return { channels: 1, classes: 10 };
    case 'listops':
      return { channels: 0, vocabSize: LISTOPS_TOKENS.length, classes: 10 };
    case 'sinusoids':
      return { channels: 1, targets: 2, timed: (source.jitter ?? 0) > 0 };
    default:
      return undefined;
  }
}

/** Settings of a source that do not go together: [the one to change, what is wrong]. */
export function labelledRules(source: Lenient<LabelledSource>): [key: string, fault: string][] {
  const rules: [key: string, fault: string][] = [];
  const ordered = <S extends object>(s: S, low: keyof S & string, high: keyof S & string) => {
    const [a, b] = [s[low], s[high]] as unknown as (number | undefined)[];
    if (a !== undefined && b !== undefined && a > b) rules.push([low, `must not exceed ${high} ${b}, got ${a}`]);
  };
  if (source.type === 'listops') {
    ordered(source, 'minLength', 'maxLength');
    const { minLength, maxDepth, maxArgs } = source;
    const most = maxDepth && maxArgs ? longestListops({ maxDepth, maxArgs }) : Number.POSITIVE_INFINITY;
    if (minLength && minLength > most)
      rules.push([
        'minLength',
        `${maxDepth} levels of ${maxArgs} arguments make at most ${most} tokens, got ${minLength}`,
      ]);
  }
  if (source.type === 'sinusoids') {
    ordered(source, 'minFrequency', 'maxFrequency');
    ordered(source, 'minAmplitude', 'maxAmplitude');
    const { minFrequency, maxFrequency, testMinFrequency = minFrequency, testMaxFrequency = maxFrequency } = source;
    if (testMinFrequency !== undefined && testMaxFrequency !== undefined && testMinFrequency > testMaxFrequency)
      rules.push([
        'testMinFrequency',
        `must not exceed that of the test, ${testMaxFrequency}, got ${testMinFrequency}`,
      ]);
    const highest = Math.max(maxFrequency ?? 0, testMaxFrequency ?? 0);
    if (source.length && 2 * highest >= source.length)
      rules.push([
        'length',
        `${highest} cycles need more than ${2 * highest} samples to be told from slower ones, got ${source.length}`,
      ]);
  }
  return rules;
}
