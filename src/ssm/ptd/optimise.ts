/** Gradient descent on the perturbation: smaller kappa at equal size than a random one. Deterministic. */
import type { Matrix } from 'ml-matrix';
import { type Phi, phi } from './objective.js';

/** How to descend. */
export interface OptimiseOptions {
  /** Weight of ||E|| beside kappa. A larger one gives a smaller E and larger kappa. */
  gamma: number;
  /** Updates. */
  steps: number;
  /** `skew` keeps E skew-symmetric, `general` frees all entries (and may lose stability). */
  shape: 'skew' | 'general';
}

/**
 * Adam on ln Phi over the entries of E (those below the diagonal where it is skew), step size 0.02 sqrt(N) / 4 falling along a cosine.
 * @param a [N, N]
 * @param start [N, N], skew where the shape is
 * @returns the E of the smallest Phi seen
 */
export function optimisePerturbation(a: Matrix, start: Matrix, { gamma, steps, shape }: OptimiseOptions): Matrix {
  const e = start.clone();
  const adam = new Adam(a.rows);
  let best = { value: Number.POSITIVE_INFINITY, e };
  for (let step = 0; step <= steps; step++) {
    const at: Phi = phi(a, e, gamma);
    if (at.value < best.value) best = { value: at.value, e: e.clone() };
    const rate = ((0.02 * Math.sqrt(a.rows)) / 4) * 0.5 * (1 + Math.cos((Math.PI * step) / steps));
    if (step < steps) adam.update(e, at.logGradient, rate, shape === 'skew');
  }
  return best.e;
}

/** Adam (Kingma and Ba 2015) over the entries of a matrix. */
class Adam {
  readonly #mean: Float64Array;
  readonly #square: Float64Array;
  #updates = 0;

  constructor(readonly size: number) {
    this.#mean = new Float64Array(size * size);
    this.#square = new Float64Array(size * size);
  }

  update(e: Matrix, gradient: Matrix, rate: number, skew: boolean): void {
    const [beta1, beta2] = [0.9, 0.999];
    this.#updates++;
    const [scale1, scale2] = [1 - beta1 ** this.#updates, 1 - beta2 ** this.#updates];
    for (let i = 0; i < this.size; i++)
      for (let j = 0; j < (skew ? i : this.size); j++) {
        const at = i * this.size + j;
        const g = gradient.get(i, j) - (skew ? gradient.get(j, i) : 0); // entry (j, i) is minus entry (i, j)
        this.#mean[at] = beta1 * this.#mean[at] + (1 - beta1) * g;
        this.#square[at] = beta2 * this.#square[at] + (1 - beta2) * g * g;
        const x = e.get(i, j) - (rate * this.#mean[at]) / scale1 / (Math.sqrt(this.#square[at] / scale2) + 1e-8);
        e.set(i, j, x);
        if (skew) e.set(j, i, -x);
      }
  }
}
