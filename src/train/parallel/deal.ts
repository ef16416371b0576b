/** The rows of a step, dealt over replicas. */
import { type AnyBatch, sliceRows } from '../data/batch.js';

/**
 * Deals the rows of a step's micro-batches over `members` in order, as evenly as rows go: all rows of a batch have the same number of steps,
 * packed documents and padding included. A member gets micro-batches no larger than those given: whole ones where their number is a multiple of `members`.
 * @returns the micro-batches of each member
 * @throws RangeError when there are fewer rows than members
 */
export function dealRows<B extends AnyBatch>(batches: readonly B[], members: number): B[][] {
  const rows = batches.reduce((sum, { batchSize }) => sum + batchSize, 0);
  if (rows < members)
    throw new RangeError(
      `dealRows: ${members} workers need at least ${members} rows a step, got ${rows}; raise train.batchSize or lower train.workers`,
    );
  const cut = (member: number) => Math.floor((member * rows) / members);
  return Array.from({ length: members }, (_, member) => rowsOf(batches, cut(member), cut(member + 1)));
}

/** Rows `from` to `to` of all batches in a row, cut where a batch ends. */
function rowsOf<B extends AnyBatch>(batches: readonly B[], from: number, to: number): B[] {
  const taken: B[] = [];
  let first = 0;
  for (const batch of batches) {
    const [begin, end] = [Math.max(from - first, 0), Math.min(to - first, batch.batchSize)];
    if (begin < end) taken.push(sliceRows(batch, begin, end));
    first += batch.batchSize;
  }
  return taken;
}
