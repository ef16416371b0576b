/** Bases of modes that layers share: an optimised perturbation takes seconds, and every weight of a layer starts from it. */
import { ModeBasis, type ModeBasisOptions } from '../ssm/index.js';

const bases = new Map<string, ModeBasis>();
const KEPT = 16;

/** The basis of these options, made once; the oldest of 16 goes first. */
export function modeBasis(options: ModeBasisOptions): ModeBasis {
  const key = JSON.stringify(options);
  const basis = bases.get(key) ?? new ModeBasis(options);
  bases.set(key, basis);
  if (bases.size > KEPT) bases.delete(bases.keys().next().value as string);
  return basis;
}
