/** What the random features and the hashes draw: functions of a seed alone, in float64. */
import { Rng } from '../../rng.js';

export interface ProjectionOptions {
  /** Width E of a head. */
  headDim: number;
  /** Features m, half of them with +, half with -; even. Default floor(E ln E), made even. */
  nbFeatures?: number;
  /** 0 (default): rows as long as those of a Gaussian matrix; 1: all of length sqrt(E), which varies less and has a bias for few features. */
  scaling?: 0 | 1;
  /** Default 0. */
  seed?: number | string;
}

/** Features of a head of this width where no number is given: floor(E ln E) (https://arxiv.org/abs/2009.14794), even and at least 2. */
export function defaultNbFeatures(headDim: number): number {
  return Math.max(2, 2 * Math.floor((headDim * Math.log(headDim)) / 2));
}

/**
 * Orthogonal random features (Choromanski et al. 2020, https://arxiv.org/abs/2009.14794, Sec. 2.4): W [m / 2, E], row by row, in blocks of E rows that
 * are orthogonal to each other, of uniform direction.
 * @throws RangeError when an option is wrong
 */
export function orthogonalProjection(options: ProjectionOptions): Float32Array {
  const { headDim: E, nbFeatures = defaultNbFeatures(options.headDim), scaling = 0, seed = 0 } = options;
  if (!Number.isInteger(E) || E < 1)
    throw new RangeError(`orthogonalProjection: headDim must be a positive integer, got ${E}`);
  if (!Number.isInteger(nbFeatures) || nbFeatures < 2 || nbFeatures % 2 !== 0)
    throw new RangeError(
      `orthogonalProjection: nbFeatures must be an even number of at least 2 (each row gives a feature with + and one with -), got ${nbFeatures}`,
    );
  if (scaling !== 0 && scaling !== 1)
    throw new RangeError(`orthogonalProjection: scaling must be 0 or 1, got ${scaling}`);
  const r = nbFeatures / 2;
  const rng = new Rng(seed).split('projection');
  const rows = Array.from({ length: Math.ceil(r / E) }, () => orthonormal(E, rng)).flat();
  const norms = Array.from({ length: r }, () => (scaling === 1 ? Math.sqrt(E) : Math.hypot(...normals(E, rng))));
  return Float32Array.from(rows.slice(0, r).flatMap((row, i) => row.map((x) => norms[i] * x)));
}

/** E rows of uniform direction, orthogonal: Gram-Schmidt, twice over, on Gaussian rows. */
function orthonormal(E: number, rng: Rng): number[][] {
  const rows: number[][] = [];
  while (rows.length < E) {
    let x = normals(E, rng);
    for (let pass = 0; pass < 2; pass++)
      for (const row of rows) {
        const along = row.reduce((sum, y, i) => sum + y * x[i], 0);
        x = x.map((y, i) => y - along * row[i]);
      }
    const norm = Math.hypot(...x);
    rows.push(x.map((y) => y / norm));
  }
  return rows;
}

const normals = (n: number, rng: Rng): number[] => Array.from({ length: n }, () => rng.normal());

/** Rotations [E, rounds, numBuckets / 2] of the hash `rotation`. */
export function hashRotations(
  headDim: number,
  rounds: number,
  numBuckets: number,
  seed: number | string,
): Float32Array {
  return new Rng(seed).split('rotations').normalArray((headDim * rounds * numBuckets) / 2);
}

/** Directions [E + 2, rounds] of the hash `sorted`. */
export function hashDirections(headDim: number, rounds: number, seed: number | string): Float32Array {
  return new Rng(seed).split('directions').normalArray((headDim + 2) * rounds);
}
