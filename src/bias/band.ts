/** A matrix as something smooth plus a band along its diagonal: a sharp peak there is what low rank follows last. */

/** Position of row i among the columns: the rows are the last. */
const positionOf = (rows: number[][], i: number) => rows[0].length - rows.length + i;

/**
 * The matrix with every entry less than `w` from the diagonal replaced by a straight line between the entries at both ends of the band; at an
 * end of the row by the one there is, or 0 where the whole row is in the band.
 */
export function filledBand(rows: number[][], w: number): number[][] {
  return rows.map((row, i) => {
    const own = positionOf(rows, i);
    const [before, after] = [row[own - w], row[own + w]];
    const line = (j: number) => {
      const share = (j - own + w) / (2 * w);
      return (before ?? after ?? 0) * (1 - share) + (after ?? before ?? 0) * share;
    };
    return row.map((b, j) => (Math.abs(j - own) < w ? line(j) : b));
  });
}

/** Takes the entries of the band out, [T][2 w - 1] with 0 where there is no column, and leaves 0 in their place. */
export function takenBand(rows: number[][], w: number): number[][] {
  return rows.map((row, i) =>
    Array.from({ length: 2 * w - 1 }, (_, d) => {
      const j = positionOf(rows, i) + d - (w - 1);
      if (j < 0 || j >= row.length) return 0;
      const b = row[j];
      row[j] = 0;
      return b;
    }),
  );
}
