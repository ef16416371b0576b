/**
 * How far a perturbation of size eps = ||E||_2 moves HiPPO-LegS's transfer function on the imaginary axis, for B and C of unit norm.
 * Both elementary bounds follow from ||(i w - A)^{-1}|| <= 2, as A + A^T = -I - B B^T, and do not depend on N.
 */

/** Any E with eps < 1/2: |G_E - G| <= 4 eps / (1 - 2 eps). Infinite from 1/2 on. */
export const generalBound = (eps: number): number => (eps < 0.5 ? (4 * eps) / (1 - 2 * eps) : Number.POSITIVE_INFINITY);

/** Skew-symmetric E of any size: the perturbed resolvent has norm at most 2 as well, so |G_E - G| <= 4 eps. */
export const skewBound = (eps: number): number => 4 * eps;

/** The first-order term of the PTD paper's Theorem 3 (https://arxiv.org/abs/2310.01698): (2 ln N + 4) eps. */
export const firstOrderBound = (size: number, eps: number): number => (2 * Math.log(size) + 4) * eps;
