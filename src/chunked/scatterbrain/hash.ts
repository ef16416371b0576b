/** Buckets of tokens, in float64 and in one order of summing, so that a token's own bucket never depends on how a call is cut. */

/** Sizes of x [B, T, H, E]. */
export interface TokenSizes {
  B: number;
  T: number;
  H: number;
  E: number;
}

/**
 * Reformer's hash (Kitaev et al. 2020, https://arxiv.org/abs/2001.04451): argmax over [x R, -x R], of the token alone. rotations
 * [E, rounds, half]; returns [B, T, H, rounds].
 */
export function rotationBuckets(
  x: ArrayLike<number>,
  { B, T, H, E }: TokenSizes,
  rotations: ArrayLike<number>,
  rounds: number,
): Int32Array {
  const half = rotations.length / (E * rounds);
  const buckets = new Int32Array(B * T * H * rounds);
  const width = rounds * half;
  const sums = new Float64Array(width);
  for (let row = 0; row < B * T * H; row++) {
    sums.fill(0);
    for (let e = 0; e < E; e++) {
      const value = x[row * E + e];
      for (let i = 0; i < width; i++) sums[i] += value * rotations[e * width + i];
    }
    for (let round = 0; round < rounds; round++) buckets[row * rounds + round] = largest(sums, round * half, half);
  }
  return buckets;
}

/** The place of the largest of [x, -x], the first of equals. */
function largest(x: Float64Array, at: number, n: number): number {
  let [place, most] = [0, x[at]];
  for (let i = 1; i < n; i++) if (x[at + i] > most) [place, most] = [i, x[at + i]];
  for (let i = 0; i < n; i++) if (-x[at + i] > most) [place, most] = [n + i, -x[at + i]];
  return place;
}

/** Rows of x that form one sequence and head, by the place of their first number. */
export type Rows = { x: ArrayLike<number>; starts: Int32Array };

/**
 * SMYRF's hash (Daras et al. 2020, https://arxiv.org/abs/2010.05315): queries and keys are lifted to vectors of one length with the same
 * products (XBOX+), projected on one direction, and cut in the order of the projections into buckets of [querySize, keySize].
 * @param direction [E + 2], read from `directions[. * rounds + round]`
 */
export function sortedBuckets(
  q: Rows,
  k: Rows,
  E: number,
  directions: ArrayLike<number>,
  { rounds, round }: { rounds: number; round: number },
  [querySize, keySize]: readonly [number, number],
): [q: Int32Array, k: Int32Array] {
  const squares = [q, k].map((rows) => squaresOf(rows, E));
  const both = squares.reduce((sum, all) => sum + all.reduce((a, b) => Math.max(a, b), 0), 0);
  const scores = [q, k].map(({ x, starts }, which) => {
    const lift = directions[(E + 1 - which) * rounds + round];
    return Float64Array.from(starts, (start, i) => {
      let sum = Math.sqrt(Math.max(0, both - squares[which][i])) * lift;
      for (let e = 0; e < E; e++) sum += x[start + e] * directions[e * rounds + round];
      return sum;
    });
  });
  return [piecesOf(scores[0], querySize), piecesOf(scores[1], keySize)];
}

function squaresOf({ x, starts }: Rows, E: number): Float64Array {
  return Float64Array.from(starts, (start) => {
    let sum = 0;
    for (let e = 0; e < E; e++) sum += x[start + e] ** 2;
    return sum;
  });
}

/** floor(rank / size) of every score; equals rank in the order they come. */
function piecesOf(scores: Float64Array, size: number): Int32Array {
  const order = Int32Array.from(scores, (_, i) => i).sort((a, b) => scores[a] - scores[b] || a - b);
  const pieces = new Int32Array(scores.length);
  order.forEach((token, rank) => {
    pieces[token] = Math.floor(rank / size);
  });
  return pieces;
}
