/** Whether two contestants do the same work: the numbers they give, run by run. */

export interface Agreement {
  /** Largest difference over the runs compared; NaN when a number is NaN. */
  worst: number;
  /** Runs that both did, at most `limit`. */
  compared: number;
}

/** Compares the first `limit` numbers of both, as far as both go. */
export function agreement(ours: readonly number[], theirs: readonly number[], limit: number): Agreement {
  const compared = Math.min(ours.length, theirs.length, limit);
  const differences = Array.from({ length: compared }, (_, i) => Math.abs(ours[i] - theirs[i]));
  return { worst: Math.max(0, ...differences), compared };
}

/** Why a comparison is refused; undefined when the numbers agree within `tolerance`. */
export function disagreement({ worst, compared }: Agreement, what: string, tolerance: number): string | undefined {
  if (compared === 0) return `no ${what} to compare, so it may not be the same work`;
  if (worst <= tolerance) return undefined;
  return `its ${what} differs from ours by ${worst.toPrecision(2)} (more than ${tolerance}): not the same work`;
}
