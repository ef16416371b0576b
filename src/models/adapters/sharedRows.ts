/** Weights whose rows are heads: several heads for each published one, and back. */

export interface WeightArray {
  shape: readonly number[];
  data: Float32Array;
}

/**
 * Every head, `rows` rows of the weight, several times in a row.
 * @param total rows wanted; where no number of times gives them, the weight itself comes back
 */
export function repeatHeadRows(weight: WeightArray, rows: number, total: number): WeightArray {
  const { shape, data } = weight;
  const times = total / shape[0];
  if (times === 1 || !Number.isInteger(times) || shape[0] % rows) return weight;
  const size = (data.length / shape[0]) * rows;
  const repeated = new Float32Array(data.length * times);
  for (let head = 0; head * size < data.length; head++)
    for (let n = 0; n < times; n++)
      repeated.set(data.subarray(head * size, (head + 1) * size), (head * times + n) * size);
  return { shape: [total, ...shape.slice(1)], data: repeated };
}

/** One of every `times` heads in a row, what `repeatHeadRows` made them from; undefined when they are not equal. */
export function firstOfEach({ shape, data }: WeightArray, rows: number, times: number): WeightArray | undefined {
  const size = (data.length / shape[0]) * rows;
  const kept = new Float32Array(data.length / times);
  for (let head = 0; head * size < kept.length; head++)
    kept.set(data.subarray(head * times * size, (head * times + 1) * size), head * size);
  const weight = { shape: [shape[0] / times, ...shape.slice(1)], data: kept };
  const back = repeatHeadRows(weight, rows, shape[0]).data;
  return back.every((x, i) => x === data[i]) ? weight : undefined;
}
