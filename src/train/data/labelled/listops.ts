/**
 * ListOps (Nangia & Bowman 2018, https://arxiv.org/abs/1804.06028) in the long form of the Long Range Arena (Tay et al. 2020,
 * https://arxiv.org/abs/2011.04006): the value, 0 to 9, of a nested expression like `[MAX 2 9 [MIN 4 7 ] 0 ]`, one token for each part.
 *
 * A tree is drawn as published: at each place below the last level an operator with probability 1/4, else a digit; an operator has 2 to
 * `maxArgs` arguments. Trees of other lengths than wanted are drawn again.
 */
import { Rng } from '../../../rng.js';
import type { Example, Examples } from './examples.js';
import type { ListopsSource } from './schema.js';

/** Digits are tokens 0 to 9, operators 10 to 13, the closing bracket 14. */
export const LISTOPS_TOKENS = [...'0123456789', '[MIN', '[MAX', '[MED', '[SM', ']'] as const;

const END = 14;
const OPERATOR_SHARE = 0.25;
const TRIES = 1e6;

const operators: readonly ((args: readonly number[]) => number)[] = [
  (args) => Math.min(...args),
  (args) => Math.max(...args),
  (args) => median(args),
  (args) => args.reduce((sum, x) => sum + x, 0) % 10,
];

/** The lower whole number where two stand in the middle, as published. */
function median(args: readonly number[]): number {
  const sorted = [...args].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : Math.floor((sorted[half - 1] + sorted[half]) / 2);
}

type Bounds = Pick<ListopsSource, 'minLength' | 'maxLength' | 'maxDepth' | 'maxArgs'>;

/** The most tokens an expression may have. */
export const longestListops = ({ maxDepth, maxArgs }: Pick<Bounds, 'maxDepth' | 'maxArgs'>): number =>
  Array.from({ length: maxDepth - 1 }).reduce<number>((length) => 2 + maxArgs * length, 1);

/** @param seed decides every example, together with its number */
export function listops(bounds: Bounds, seed: string, size = Number.POSITIVE_INFINITY): Examples {
  const rng = new Rng(seed);
  return { size, read: (index) => expression(rng.split(`example ${index}`), bounds) };
}

/** @throws RangeError when a million trees have other lengths */
function expression(rng: Rng, bounds: Bounds): Example {
  for (let i = 0; i < TRIES; i++) {
    const tokens: number[] = [];
    const y = grow(rng, bounds, 1, tokens);
    if (y !== undefined && tokens.length >= bounds.minLength) return { x: Int32Array.from(tokens), y };
  }
  throw new RangeError(
    `listops: no expression of ${bounds.minLength} to ${bounds.maxLength} tokens among ${TRIES} trees; widen the lengths, or raise maxDepth or maxArgs`,
  );
}

/** Appends a random tree. @returns its value; undefined when it is too long, which ends it */
function grow(rng: Rng, bounds: Bounds, depth: number, tokens: number[]): number | undefined {
  if (depth === bounds.maxDepth || rng.uniform() >= OPERATOR_SHARE) {
    const digit = rng.int(10);
    tokens.push(digit);
    return tokens.length > bounds.maxLength ? undefined : digit;
  }
  const numArgs = 2 + rng.int(bounds.maxArgs - 1);
  const operator = rng.int(operators.length);
  tokens.push(10 + operator);
  const args: number[] = [];
  for (let i = 0; i < numArgs; i++) {
    const value = grow(rng, bounds, depth + 1, tokens);
    if (value === undefined) return undefined;
    args.push(value);
  }
  tokens.push(END);
  return tokens.length > bounds.maxLength ? undefined : operators[operator](args);
}
