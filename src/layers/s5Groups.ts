/** Learning rates and decay of S5's weights, as the groups of the public training scripts have them. */
import type { WeightSpec } from './seqLayer.js';

export type ParameterGroups = 'standard' | 'BandCdecay' | 'BfastandCdecay' | 'noBCdecay';

/** A rate for all, or one each: `A` the modes, `B`, `dt` the steps. null: the run's. */
export type SsmLearningRate = number | null | { A?: number | null; B?: number | null; dt?: number | null };

interface Grouping {
  parameterGroups: ParameterGroups;
  dtGlobal: boolean;
  ssmLearningRate: SsmLearningRate;
}

/** What a weight's spec says of its optimiser. */
export function rateOf(grouping: Grouping, name: string): Pick<WeightSpec, 'learningRate' | 'decays'> {
  const { parameterGroups: groups, dtGlobal, ssmLearningRate: rate } = grouping;
  const part = { Lambda_re: 'A', Lambda_im: 'A', B: 'B', log_step: 'dt' }[name] as 'A' | 'B' | 'dt' | undefined;
  const slow = (decays: boolean) => {
    const own = typeof rate === 'object' && rate !== null ? rate[part ?? 'B'] : rate;
    return { decays, ...(own !== null && own !== undefined && { learningRate: own }) };
  };
  const global = { decays: true };
  if (part === 'A') return slow(false);
  if (part === 'dt') return dtGlobal ? global : slow(false);
  if (groups === 'noBCdecay' && (part === 'B' || /^[CD]/.test(name))) return slow(false);
  if (part !== 'B' || groups === 'BfastandCdecay') return global;
  return slow(groups === 'BandCdecay');
}

/** `A` and `B` where they are written `a` and `b`. */
export function namedRates(rate: SsmLearningRate | undefined): SsmLearningRate | undefined {
  if (typeof rate !== 'object' || rate === null) return rate;
  return Object.fromEntries(Object.entries(rate).map(([name, x]) => [{ a: 'A', b: 'B' }[name] ?? name, x]));
}

export function areRates(rate: SsmLearningRate): boolean {
  const isRate = (x: unknown) => x === null || x === undefined || (typeof x === 'number' && x >= 0);
  if (typeof rate !== 'object' || rate === null) return isRate(rate);
  return Object.entries(rate).every(([name, x]) => ['A', 'B', 'dt'].includes(name) && isRate(x));
}
