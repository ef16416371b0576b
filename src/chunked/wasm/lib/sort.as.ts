/** Rows by the number they bear: the way from a sum over many places to one pass over each. */

/**
 * A stable counting sort of n rows by ids in 0 .. V - 1. Leaves in `order` (n ints) the rows sorted by id, and in starts[v]
 * (V + 1 ints) the place after the last row of v.
 */
export function sortById(ids: usize, n: i32, V: i32, starts: usize, order: usize): void {
  memory.fill(starts, 0, (<usize>V + 1) << 2);
  for (let r = 0; r < n; r++) {
    const count = starts + (<usize>(load<i32>(ids + (<usize>r << 2)) + 1) << 2);
    store<i32>(count, load<i32>(count) + 1);
  }
  for (let v = 1; v <= V; v++) {
    const at = starts + (<usize>v << 2);
    store<i32>(at, load<i32>(at) + load<i32>(at - 4));
  }
  for (let r = 0; r < n; r++) {
    const next = starts + (<usize>load<i32>(ids + (<usize>r << 2)) << 2), place = load<i32>(next);
    store<i32>(order + (<usize>place << 2), r);
    store<i32>(next, place + 1);
  }
}
