/** The value below which the share `p` of the numbers lies, between neighbours in proportion; of infinite ones the nearer neighbour. */
export function quantile(numbers: readonly number[], p: number): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const at = p * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  if (low === high) return low;
  if (!Number.isFinite(high)) return at % 1 < 0.5 ? low : high;
  return low + (at % 1) * (high - low);
}
