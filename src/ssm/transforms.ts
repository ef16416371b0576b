/** How a positive quantity (decay -Re A, step dt) is held as a free parameter, and the parameter an initial value needs. */

/** `relu` adds 1e-4 to what it lets through. */
export type PositiveTransform = 'exp' | 'relu' | 'none' | 'sigmoid' | 'softplus';

const INVERSES: Record<PositiveTransform, (value: number) => number> = {
  exp: Math.log,
  relu: (value) => value, // as published: the value itself, so 1e-4 more comes out
  none: (value) => value,
  sigmoid: (value) => Math.log(value) - Math.log1p(-value),
  softplus: (value) => value + Math.log(-Math.expm1(-value)), // ln(e^v - 1) without overflow
};

/** The parameters whose transforms are `values` (for `sigmoid` below 1), values below 0.0001 taken for it. */
export function untransformed(transform: PositiveTransform, values: ArrayLike<number>): Float64Array {
  const inverse = INVERSES[transform];
  if (!inverse)
    throw new RangeError(
      `untransformed: transform must be one of ${Object.keys(INVERSES).join(', ')}, got ${JSON.stringify(transform)}`,
    );
  return Float64Array.from(values, (value) => {
    if (transform === 'sigmoid' && value >= 1)
      throw new RangeError(`untransformed: a sigmoid cannot be ${value}; use "exp" or "softplus"`);
    return inverse(Math.max(1e-4, value));
  });
}
