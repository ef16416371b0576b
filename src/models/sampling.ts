/** Choosing a token from logits: float64 arithmetic on plain arrays, no sorting of the whole vocabulary. */

export interface SamplingOptions {
  /** Logits are divided by this; 0 takes the likeliest token (of equals, the lowest id). Default 1. */
  temperature?: number;
  /** Choose among the k likeliest tokens; default: all. */
  topK?: number;
  /** Choose among the fewest likeliest tokens whose probabilities (after topK) reach p; 1 (default): all. Holtzman et al. 2020, https://arxiv.org/abs/1904.09751. */
  topP?: number;
  /**
   * Discourages tokens already in the sequence, prompt included: their logit x becomes x / r where positive, x * r elsewhere.
   * Keskar et al. 2019 (CTRL, https://arxiv.org/abs/1909.05858, Sec. 4.1), with the sign rule in use since; 1 (default): off.
   */
  repetitionPenalty?: number;
}

/** @throws RangeError naming the option, what it may be and what came */
export function checkSampling(who: string, { temperature, topK, topP, repetitionPenalty }: SamplingOptions): void {
  const rules: [string, number | undefined, string, (x: number) => boolean][] = [
    ['temperature', temperature, 'a finite number >= 0', (x) => Number.isFinite(x) && x >= 0],
    ['topK', topK, 'a positive integer', (x) => Number.isInteger(x) && x > 0],
    ['topP', topP, 'above 0 and at most 1', (x) => x > 0 && x <= 1],
    ['repetitionPenalty', repetitionPenalty, 'a finite number > 0', (x) => Number.isFinite(x) && x > 0],
  ];
  for (const [name, value, expected, good] of rules)
    if (value !== undefined && !good(value)) throw new RangeError(`${who}: ${name} must be ${expected}, got ${value}`);
}

/**
 * Draws a token. Penalty, then temperature, then topK, then topP.
 * @param logits one per token id; not changed
 * @param uniform a random number in [0, 1), which alone decides
 * @param seen tokens to penalise
 * @throws RangeError when the largest logit is not a finite number
 */
export function sampleToken(
  logits: ArrayLike<number>,
  { temperature = 1, topK, topP = 1, repetitionPenalty = 1 }: SamplingOptions,
  uniform: number,
  seen: Iterable<number> = [],
): number {
  const scores = repetitionPenalty === 1 ? logits : penalised(logits, repetitionPenalty, seen);
  const best = argmax(scores);
  if (temperature === 0) return best;
  const weigh = (token: number) => Math.exp((scores[token] - scores[best]) / temperature); // the likeliest has 1
  if (topK !== undefined && topK < scores.length) return drawNucleus(likeliest(scores, topK), weigh, topP, uniform);
  const weights = new Float64Array(scores.length);
  for (let i = 0; i < weights.length; i++) weights[i] = weigh(i);
  return topP === 1 ? draw(weights, sum(weights), uniform) : drawFromHeap(scores, weights, topP, uniform);
}

function penalised(logits: ArrayLike<number>, penalty: number, seen: Iterable<number>): Float64Array {
  const scores = Float64Array.from(logits);
  for (const token of seen) scores[token] = scores[token] > 0 ? scores[token] / penalty : scores[token] * penalty;
  return scores;
}

function argmax(scores: ArrayLike<number>): number {
  let best = 0;
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] > scores[best]) best = i;
    else if (Number.isNaN(scores[i])) throw new RangeError(`sampleToken: the logit of token ${i} is NaN`);
  }
  if (Number.isFinite(scores[best])) return best;
  throw new RangeError(`sampleToken: the largest logit must be finite, got ${scores[best]}`);
}

/** The first index where the running sum passes `uniform` times `total`. */
function draw(weights: ArrayLike<number>, total: number, uniform: number): number {
  let [rest, last] = [uniform * total, 0];
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] === 0) continue;
    rest -= weights[i];
    if (rest < 0) return i;
    last = i; // rounding may leave a crumb at the end
  }
  return last;
}

/** The `k` tokens of the highest scores, highest first, of equals the lowest id first. */
function likeliest(scores: ArrayLike<number>, k: number): number[] {
  const heap = new HighestFirst(scores);
  return Array.from({ length: k }, () => heap.pop());
}

/** Draws from the shortest beginning of `tokens` that holds `p` of their mass. */
function drawNucleus(tokens: number[], weigh: (token: number) => number, p: number, uniform: number): number {
  const weights = tokens.map(weigh);
  const nucleus = p === 1 ? weights : prefixReaching(weights, p * sum(weights));
  return tokens[draw(nucleus, sum(nucleus), uniform)];
}

/** The same over all tokens, without sorting those beyond the nucleus. */
function drawFromHeap(scores: ArrayLike<number>, weights: Float64Array, p: number, uniform: number): number {
  const heap = new HighestFirst(scores);
  const enough = p * sum(weights);
  const tokens: number[] = [];
  let mass = 0;
  while (tokens.length < weights.length && (tokens.length === 0 || mass < enough)) {
    tokens.push(heap.pop());
    mass += weights[tokens[tokens.length - 1]];
  }
  return tokens[
    draw(
      tokens.map((token) => weights[token]),
      mass,
      uniform,
    )
  ];
}

/** The shortest non-empty beginning whose sum reaches `enough`. */
function prefixReaching(values: number[], enough: number): number[] {
  let [n, mass] = [1, values[0]];
  while (n < values.length && mass < enough) mass += values[n++];
  return values.slice(0, n);
}

const sum = (values: ArrayLike<number>) => {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
};

/** A binary heap of token ids, highest score first, of equals the lowest id: linear to build, logarithmic per token taken. */
class HighestFirst {
  readonly #ids: Int32Array;
  #size: number;

  constructor(readonly scores: ArrayLike<number>) {
    this.#size = scores.length;
    this.#ids = new Int32Array(scores.length);
    for (let i = 0; i < this.#size; i++) this.#ids[i] = i;
    for (let i = (this.#size >> 1) - 1; i >= 0; i--) this.#sink(i);
  }

  pop(): number {
    const ids = this.#ids;
    const top = ids[0];
    ids[0] = ids[--this.#size];
    this.#sink(0);
    return top;
  }

  #sink(i: number): void {
    const ids = this.#ids;
    const moving = ids[i];
    for (let child = 2 * i + 1; child < this.#size; child = 2 * i + 1) {
      if (child + 1 < this.#size && this.#before(ids[child + 1], ids[child])) child += 1;
      if (!this.#before(ids[child], moving)) break;
      ids[i] = ids[child];
      i = child;
    }
    ids[i] = moving;
  }

  #before(a: number, b: number): boolean {
    const difference = this.scores[a] - this.scores[b];
    return difference > 0 || (difference === 0 && a < b);
  }
}
