/** The rows of a step, dealt over replicas. */
import type { Batch } from '../data/index.js';
import { countTargets } from '../data/reader.js';

/**
 * Deals the rows of a step's micro-batches over `members` in order, as evenly as rows go: all rows have the same number of tokens, packed
 * documents or not. A member gets micro-batches no larger than those given: whole ones where their number is a multiple of `members`.
 * @returns the micro-batches of each member
 * @throws RangeError when there are fewer rows than members
 */
export function dealRows(batches: readonly Batch[], members: number): Batch[][] {
  const rows = batches.reduce((sum, { batchSize }) => sum + batchSize, 0);
  if (rows < members)
    throw new RangeError(
      `dealRows: ${members} workers need at least ${members} rows a step, got ${rows}; raise train.batchSize or lower train.workers`,
    );
  const cut = (member: number) => Math.floor((member * rows) / members);
  return Array.from({ length: members }, (_, member) => rowsOf(batches, cut(member), cut(member + 1)));
}

/** Rows `from` to `to` of all batches in a row, cut where a batch ends. */
function rowsOf(batches: readonly Batch[], from: number, to: number): Batch[] {
  const taken: Batch[] = [];
  let first = 0;
  for (const batch of batches) {
    const [begin, end] = [Math.max(from - first, 0), Math.min(to - first, batch.batchSize)];
    if (begin < end) taken.push(sliceRows(batch, begin, end));
    first += batch.batchSize;
  }
  return taken;
}

/** Rows `begin` to `end` of a batch, in memory of their own: a view would be sent with all that it views. */
function sliceRows(batch: Batch, begin: number, end: number): Batch {
  const { seqLen, batchSize, cuSeqlens } = batch;
  if (begin === 0 && end === batchSize) return batch;
  const [from, to] = [begin * seqLen, end * seqLen];
  const inputs = batch.inputs.slice(from, to);
  const targets = batch.targets.slice(from, to);
  const rows: Batch = { inputs, targets, batchSize: end - begin, seqLen, numTargets: countTargets(targets) };
  if (!cuSeqlens) return rows;
  // every row starts a document of its own, so both ends are among the offsets
  return { ...rows, cuSeqlens: cuSeqlens.filter((offset) => from <= offset && offset <= to).map((x) => x - from) };
}
