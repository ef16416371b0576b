/** Spelling help for config keys and values. */

/** Number of single-letter insertions, deletions, replacements and swaps of neighbours between two words, case ignored. */
export function editDistance(a: string, b: string): number {
  const [x, y] = [a.toLowerCase(), b.toLowerCase()];
  let older: number[] = [];
  let previous = Array.from({ length: y.length + 1 }, (_, j) => j);
  for (let i = 1; i <= x.length; i++) {
    const row = [i];
    for (let j = 1; j <= y.length; j++) {
      const replace = previous[j - 1] + (x[i - 1] === y[j - 1] ? 0 : 1);
      row[j] = Math.min(replace, previous[j] + 1, row[j - 1] + 1);
      const swapped = i > 1 && j > 1 && x[i - 1] === y[j - 2] && x[i - 2] === y[j - 1];
      if (swapped) row[j] = Math.min(row[j], older[j - 2] + 1);
    }
    older = previous;
    previous = row;
  }
  return previous[y.length];
}

/** The most similar of `allowed`, or undefined when nothing is close (more than 2 edits and more than 2 in 5 letters wrong). */
export function nearest(name: string, allowed: readonly string[]): string | undefined {
  const plain = (word: string) => word.replace(/[_\-.]/g, ''); // learning_rate and learningRate are the same word
  const scored = allowed.map((word) => ({ word, distance: editDistance(plain(name), plain(word)) }));
  scored.sort((a, b) => a.distance - b.distance);
  const best = scored[0];
  if (!best) return undefined;
  return best.distance <= Math.max(2, 0.4 * best.word.length) && best.distance < best.word.length
    ? best.word
    : undefined;
}
