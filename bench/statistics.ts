/** Numbers about repeated timings. */

/** The middle value; the mean of the two middle ones for an even count. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Linear interpolation between the sorted values, as NumPy does it. */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) throw new RangeError('quantile: expected at least one value, got none');
  const sorted = [...values].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

/** Smallest and largest value: the spread over the repetitions. */
export function range(values: readonly number[]): [number, number] {
  return [Math.min(...values), Math.max(...values)];
}

/** The exponent p of ms = c * T^p: slope of the least-squares line through (log T, log ms). */
export function growthExponent(points: readonly { T: number; ms: number }[]): number {
  if (points.length < 2)
    throw new RangeError(`growthExponent: expected at least two lengths, got ${points.length}; pass --T 1024,2048`);
  const [x, y] = [points.map(({ T }) => Math.log(T)), points.map(({ ms }) => Math.log(ms))];
  const mean = (v: number[]) => v.reduce((a, b) => a + b, 0) / v.length;
  const [mx, my] = [mean(x), mean(y)];
  const covariance = x.reduce((sum, xi, i) => sum + (xi - mx) * (y[i] - my), 0);
  return covariance / x.reduce((sum, xi) => sum + (xi - mx) ** 2, 0);
}

/**
 * Where a difference becomes positive for good: the zero, by linear interpolation, after the last point at which it is not positive.
 * The first x when it is positive everywhere; undefined when it is not at the last point.
 * @param points by rising x
 */
export function crossover(points: readonly { x: number; difference: number }[]): number | undefined {
  const last = points.findLastIndex(({ difference }) => difference <= 0);
  if (last === points.length - 1) return undefined;
  const [before, after] = [points[last], points[last + 1]];
  if (!before) return after.x;
  const share = before.difference / (before.difference - after.difference);
  return before.x + share * (after.x - before.x);
}
