/** Rows of text as an aligned table. */

/** Columns padded to the width of their widest cell; a column of numbers goes to the right. */
export function table(rows: string[][]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const isNumber = (column: number) =>
    rows.slice(1).every((row) => /^[\d,.]+(e-?\d+)?( %| bytes)?$|^tied$|^never$|^$/.test(row[column]));
  const right = widths.map((_, column) => isNumber(column));
  return rows.map((row) =>
    row
      .map((cell, i) => (right[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
      .join('  ')
      .trimEnd(),
  );
}
