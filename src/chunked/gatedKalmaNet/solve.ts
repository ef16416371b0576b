/** The ridge regression of every token: (H_t + lambda_t I) x_t = q_t, its two solvers and its gradient. */
import * as tf from '@tensorflow/tfjs';
import { solveCholesky } from './cholesky.js';
import type { SolveOptions } from './run.js';

/** The matrices H_t of n * C tokens, one to a row of x [n, C, D]. */
export interface TokenMatrices {
  /** H_t x_t for every row [n, C, D]. */
  times(x: tf.Tensor): tf.Tensor;
  /** Squares of the Frobenius norms [n, C, 1]. */
  squaredNorms(): tf.Tensor;
  /** The matrices themselves [n * C, D, D]. */
  materialised(): tf.Tensor;
}

/**
 * x of (H_t + lambda_t I) x_t = q_t, for q [n, C, D]. `parts` are the tensors that `matricesOf` makes the matrices from. The gradient is that of the
 * equation (README, section 5): with c the solution for dx by the same solver, dq = c, and H_t and lambda_t get -c_t times the derivative of
 * (H_t + lambda_t I) x_t at fixed x.
 */
export function solveRidge(
  q: tf.Tensor,
  parts: tf.Tensor[],
  matricesOf: (parts: tf.Tensor[]) => TokenMatrices,
  options: SolveOptions,
): tf.Tensor {
  const { solver, numIterations, ridgeRatio, lambdaGradient } = options;
  if (solver === 'chebyshev' && numIterations === 0) return q;
  const matrices = matricesOf(parts);
  const norms = lambdaGradient ? normsOf(matrices) : untaped(() => normsOf(matrices));
  const invert = (b: tf.Tensor, H: TokenMatrices, f: tf.Tensor) =>
    solver === 'exact' ? solveExact(b, H, f, ridgeRatio) : chebyshev(b, H, f, ridgeRatio, numIterations);
  const x = untaped(() => invert(q, matrices, norms));
  const missing = tf.sub(q, tf.add(matrices.times(x), tf.mul(tf.mul(norms, ridgeRatio), x)));
  const solved = tf.customGrad((...args) => {
    const save = args[args.length - 1] as unknown as tf.GradSaveFunc;
    save([norms, ...parts]);
    const gradFunc = (dx: tf.Tensor, [f, ...saved]: tf.Tensor[]) => invert(dx, matricesOf(saved), f);
    return { value: tf.clone(x), gradFunc };
  });
  return solved(missing);
}

/** Frobenius norms [n, C, 1]; 1 where the matrix is 0, without a gradient. */
function normsOf(matrices: TokenMatrices): tf.Tensor {
  const squares = matrices.squaredNorms();
  const full = untaped(() => tf.greater(squares, 0));
  return tf.sqrt(tf.where(full, squares, tf.onesLike(squares)));
}

/**
 * Chebyshev iteration for a spectrum in [lambda, lambda + f], f the norms [n, C, 1], lambda = ridgeRatio * f (paper, Algorithm 1, but with the
 * classical first weight 2 instead of 0). The weights depend on ridgeRatio alone. Changes of x are carried instead of the x before: the same
 * numbers, but less lost in float32 (README, section 3).
 */
function chebyshev(b: tf.Tensor, H: TokenMatrices, f: tf.Tensor, ridgeRatio: number, numIterations: number): tf.Tensor {
  const rho = 1 / (1 + 2 * ridgeRatio);
  const [lambda, step] = [tf.mul(ridgeRatio, f), tf.div(2 * rho, f)]; // step = 2 / (2 lambda + f)
  let x = tf.mul(step, b);
  let [weight, change] = [2, x];
  for (let n = 0; n < numIterations; n++) {
    weight = 1 / (1 - (rho * rho * weight) / 4);
    const next = tf.tidy(() => {
      const missing = tf.sub(b, tf.add(H.times(x), tf.mul(lambda, x)));
      const moved = tf.add(tf.mul(tf.mul(weight, step), missing), tf.mul(weight - 1, change));
      return [tf.add(x, moved), moved];
    });
    tf.dispose([x, change]); // or the steps of one call would pile up
    [x, change] = next;
  }
  return x;
}

function solveExact(b: tf.Tensor, H: TokenMatrices, f: tf.Tensor, ridgeRatio: number): tf.Tensor {
  const [n, C, D] = b.shape;
  const lambda = tf.mul(f, ridgeRatio).reshape([n * C, 1, 1]);
  const ridge = tf.add(H.materialised(), tf.mul(lambda, tf.eye(D).expandDims(0)));
  return solveCholesky(ridge, b.reshape([n * C, 1, D])).reshape([n, C, D]);
}

/** A result that the tape knows nothing of: a constant to whatever is differentiated. */
function untaped(f: () => tf.Tensor): tf.Tensor {
  return tf.customGrad(() => ({ value: f(), gradFunc: () => [] }))();
}
