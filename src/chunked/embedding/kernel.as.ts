import { low, pair } from '../wasm/lib/double.as';
import { sortById } from '../wasm/lib/sort.as';
import { copyRow } from '../wasm/lib/tail.as';

/** y[r] = table[ids[r]] for n rows of D floats. */
export function embeddingFwd(ids: usize, table: usize, y: usize, n: i32, D: i32): void {
  const stride = <usize>D << 2;
  for (const end = ids + (<usize>n << 2); ids < end; ids += 4, y += stride)
    copyRow(table + <usize>load<i32>(ids) * stride, y, D);
}

/**
 * dTable[v] = sum of dy[r] over all r with ids[r] == v, in the order of r: the rows are sorted by id first (a counting sort, stable),
 * so each row of dTable is written once, and its sum stays in float64 registers until it is rounded once.
 * Scratch: `starts` V + 1 ints, `order` n ints.
 */
export function embeddingBwd(
  ids: usize, dy: usize, dTable: usize, n: i32, V: i32, D: i32, starts: usize, order: usize,
): void {
  const stride = <usize>D << 2;
  sortById(ids, n, V, starts, order);
  for (let v = 0, from = order; v < V; v++, starts += 4, dTable += stride) {
    const to = order + (<usize>load<i32>(starts) << 2);
    if (to == from) memory.fill(dTable, 0, stride);
    else if (to == from + 4) copyRow(dy + <usize>load<i32>(from) * stride, dTable, D);
    else sumRows(dy, stride, from, to, dTable, D);
    from = to;
  }
}

/** y = sum of the rows of x whose numbers stand in from .. to. Sixteen columns (a cache line) at a time. */
function sumRows(x: usize, stride: usize, from: usize, to: usize, y: usize, columns: i32): void {
  let i = 0;
  for (; i + 16 <= columns; i += 16, x += 64, y += 64) {
    let a = f64x2.splat(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (let r = from; r < to; r += 4) {
      const p = x + <usize>load<i32>(r) * stride;
      a = f64x2.add(a, low(p, 0));
      b = f64x2.add(b, low(p, 8));
      c = f64x2.add(c, low(p, 16));
      d = f64x2.add(d, low(p, 24));
      e = f64x2.add(e, low(p, 32));
      f = f64x2.add(f, low(p, 40));
      g = f64x2.add(g, low(p, 48));
      h = f64x2.add(h, low(p, 56));
    }
    v128.store(y, pair(a, b));
    v128.store(y, pair(c, d), 16);
    v128.store(y, pair(e, f), 32);
    v128.store(y, pair(g, h), 48);
  }
  for (; i < columns; i++, x += 4, y += 4) {
    let sum: f64 = 0;
    for (let r = from; r < to; r += 4) sum += <f64>load<f32>(x + <usize>load<i32>(r) * stride);
    store<f32>(y, <f32>sum);
  }
}
