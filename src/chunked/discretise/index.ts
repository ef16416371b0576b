/** Discretisation of diagonal state spaces: x' = a x + b u becomes x_t = exp(zeta) x_{t-1} + psi b u_t (README.md here). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkOneOf, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedDiscretise } from './fused.js';
import { plainDiscretise } from './plain.js';

/** `zoh`: the input is held between steps. `bilinear`: the trapezoidal rule. */
export type DiscretisationRule = 'zoh' | 'bilinear';

export interface DiscretiseInputs {
  /** Steps, in the unit of time of a: [H] or [H, M] beside a [R, M, 2], [..., P] beside a [P, 2]. */
  dt: tf.Tensor;
  /** Continuous modes as [re, im]: [R, M, 2], H a multiple of R, where channel h uses copy h mod R; or [P, 2]. */
  a: tf.Tensor;
}

export interface DiscretiseOptions {
  /** Default 'zoh'. */
  rule?: DiscretisationRule;
  form?: PlainForm;
}

/** Both [H, M, 2], or [..., P, 2]: the transition is exp(zeta), the input is multiplied by psi. */
export type DiscretiseOutput = {
  zeta: tf.Tensor;
  psi: tf.Tensor;
};

/** Rows of M modes; row r uses row r mod `copies` of a, and one step, or one for `each` mode. */
export interface DiscretiseSizes {
  rows: number;
  copies: number;
  M: number;
  each: boolean;
}

/**
 * Transitions and input factors of diagonal modes, to float32 accuracy however small a step is (S4D, Gu et al. 2022,
 * https://arxiv.org/abs/2206.11893, section 3; S5, https://arxiv.org/abs/2208.04933, section 3). With z = dt a:
 *
 * - zoh: zeta = z less whole turns (only exp(l zeta) with whole l is meant to be used), psi = (e^z - 1) / a, which is dt for a = 0;
 * - bilinear: exp(zeta) = (1 + z/2) / (1 - z/2), psi = dt / (1 - z/2). z = -2 makes zeta -Infinity, its gradient is no number.
 *
 * Complex gradients are [dL/dRe, dL/dIm].
 * @throws RangeError or TypeError for wrong shapes, dtypes or options
 */
export function discretise({ dt, a }: DiscretiseInputs, options: DiscretiseOptions = {}): DiscretiseOutput {
  const { rule = 'zoh', form = 'auto' } = options;
  checkGiven('discretise', { dt, a });
  checkDtype('discretise', { dt, a });
  checkOneOf('discretise', 'rule', rule, ['zoh', 'bilinear']);
  const sizes = sizesOf(dt, a);
  const shape = sizes.each ? [...dt.shape, 2] : [sizes.rows, sizes.M, 2];
  if (isFused('discretise', form))
    return fusedDiscretise({ dt, a }, { ...sizes, shape, bilinear: rule === 'bilinear' });
  return tf.tidy(() => {
    const { zeta, psi } = plainDiscretise({ dt, a }, sizes, rule);
    return { zeta: tf.reshape(zeta, shape), psi: tf.reshape(psi, shape) };
  });
}

function sizesOf(dt: tf.Tensor, a: tf.Tensor): DiscretiseSizes {
  if (a.rank === 2) {
    const [P] = a.shape;
    checkShapes('discretise', { a: [a, [null, 2]], dt: [dt, [...dt.shape.slice(0, -1), P]] });
    if (dt.rank === 0) throw new RangeError(`discretise: dt must have shape [...,${P}] beside a [${P},2], got []`);
    return { rows: P === 0 ? 0 : dt.size / P, copies: 1, M: P, each: true };
  }
  checkShapes('discretise', { a: [a, [null, null, 2]] });
  const [copies, M] = a.shape;
  const each = dt.rank === 2;
  checkShapes('discretise', { dt: [dt, each ? [null, M] : [null]] });
  const [rows] = dt.shape;
  if (copies === 0 || rows % copies !== 0)
    throw new RangeError(
      `discretise: the ${rows} channels of dt must be a multiple of the ${copies} copies of a, a [copies, modes, 2]; got dt [${dt.shape}] and a [${a.shape}]`,
    );
  return { rows, copies, M, each };
}
