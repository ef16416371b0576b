/** From buckets to what every query sees: the keys of a round by bucket, in the order of time, and for each query a range of them. */

/**
 * One round for one sequence and head. Rows count the keys of the call; times count from the first key of the past that is in the window, so that
 * query t of a causal call stands at past + t, and keys in buckets of the past may have negative ones.
 */
export interface Round {
  /** Queries by bucket; -1 fills each bucket up to a multiple of 4. */
  queries: Int32Array;
  /** Query t sees the places low[t] to high[t] - 1 of `rows`. */
  low: Int32Array;
  high: Int32Array;
  /** Keys by bucket, and in a bucket by time: rows, times. */
  rows: Int32Array;
  times: Int32Array;
  /** Place of the first key of every bucket, and the number of keys. */
  starts: Int32Array;
}

/** The keys of a round in the order of time. */
export interface RoundKeys {
  rows: Int32Array;
  times: Int32Array;
  buckets: Int32Array;
}

export interface RoundOptions {
  /** Keys of its bucket that a query sees; undefined: all. */
  size?: number;
  causal: boolean;
  /** Time of query t. */
  timeOf: (t: number) => number;
}

/**
 * Causal: the last `size` keys of the query's bucket at or before it. Else the `size` keys of the bucket around its time: from floor(size / 2) before
 * the last key at or before it on.
 */
export function bucketRound(queryBuckets: Int32Array, keys: RoundKeys, { size, causal, timeOf }: RoundOptions): Round {
  const T = queryBuckets.length;
  const count = 1 + Math.max(maximum(queryBuckets), maximum(keys.buckets));
  const { order, starts } = byBucket(keys.buckets, count);
  const [rows, times] = [keys.rows, keys.times].map((x) => order.map((i) => x[i]));
  const [low, high] = [new Int32Array(T), new Int32Array(T)];
  const reached = starts.slice(0, count);
  for (let t = 0; t < T; t++) {
    const [bucket, time] = [queryBuckets[t], timeOf(t)];
    const [start, end] = [starts[bucket], starts[bucket + 1]];
    while (reached[bucket] < end && times[reached[bucket]] <= time) reached[bucket]++;
    const now = reached[bucket];
    if (causal) {
      low[t] = size === undefined ? start : Math.max(start, now - size);
      high[t] = now;
    } else {
      low[t] = size === undefined ? start : Math.max(start, now - 1 - Math.floor(size / 2));
      high[t] = size === undefined ? end : Math.max(low[t], Math.min(end, now - 1 + Math.ceil(size / 2)));
    }
  }
  return { queries: inFours(queryBuckets, count), low, high, rows, times, starts };
}

/** Every key at most so far away: -floor(size / 2) <= j - t < floor((size + 1) / 2). */
export function windowRound(T: number, size: number): Round {
  const all = Int32Array.from({ length: T }, (_, i) => i);
  return {
    queries: inFours(new Int32Array(T), 1),
    low: all.map((t) => Math.max(0, t - Math.floor(size / 2))),
    high: all.map((t) => Math.min(T, t + Math.floor((size + 1) / 2))),
    ...{ rows: all, times: all, starts: Int32Array.of(0, T) },
  };
}

/** A stable counting sort. */
function byBucket(buckets: Int32Array, count: number): { order: Int32Array; starts: Int32Array } {
  const starts = new Int32Array(count + 1);
  for (const bucket of buckets) starts[bucket + 1]++;
  for (let b = 0; b < count; b++) starts[b + 1] += starts[b];
  const next = starts.slice();
  const order = new Int32Array(buckets.length);
  buckets.forEach((bucket, i) => {
    order[next[bucket]++] = i;
  });
  return { order, starts };
}

function inFours(buckets: Int32Array, count: number): Int32Array {
  const { order, starts } = byBucket(buckets, count);
  const all: number[] = [];
  for (let b = 0; b < count; b++) {
    for (let i = starts[b]; i < starts[b + 1]; i++) all.push(order[i]);
    while (all.length % 4 !== 0) all.push(-1);
  }
  return Int32Array.from(all);
}

function maximum(x: Int32Array): number {
  let most = 0;
  for (const value of x) if (value > most) most = value;
  return most;
}

/** For every key of a round, its place in another round (-1: none): tokens are known by their times. */
function ranks(round: Round, other: Round): Int32Array {
  const first = Math.min(0, ...[round, other].map(({ times }) => times.reduce((a, b) => Math.min(a, b), 0)));
  const last = Math.max(...[round, other].map(({ times }) => maximum(times)));
  const places = new Int32Array(last - first + 1).fill(-1);
  other.times.forEach((time, place) => {
    places[time - first] = place;
  });
  return round.times.map((time) => places[time - first]);
}

/** Ints in the header of a round. */
const HEADER = 8;
/** Ints after the table, which a kernel may read without using them. */
const MARGIN = 64;

/**
 * The table that the kernels read. For every sequence, head and round a header: where the queries are and how many, where low and high, where the
 * rows of the keys and how many, where their times, and where their ranks in the rounds before, round after round.
 */
export function supportTable(all: readonly (readonly Round[])[]): Int32Array {
  const rounds = all.flat();
  const per = all[0].length;
  const sizes = rounds.map(
    ({ queries, low, rows }, i) => queries.length + 2 * low.length + rows.length * (2 + (i % per)),
  );
  const table = new Int32Array(rounds.length * HEADER + sizes.reduce((a, b) => a + b, 0) + MARGIN);
  let at = rounds.length * HEADER;
  const put = (x: Int32Array) => {
    table.set(x, at);
    at += x.length;
    return at - x.length;
  };
  rounds.forEach((round, i) => {
    const { queries, low, high, rows, times } = round;
    const header = [put(queries), queries.length, put(low), put(high), put(rows), rows.length, put(times), at];
    table.set(header, i * HEADER);
    const before = i - (i % per);
    for (let r = before; r < i; r++) put(ranks(round, rounds[r]));
  });
  return table;
}
