/**
 * Modes x' = a x + v after steps of any length in float64: the discretisation of every token and mode, then the recurrence. For factors
 * e^zeta with gradient g, that of zeta is conj(e^zeta) g; psi b has those of both factors.
 */
import { type Complex, complexes, conj, exp, plus, times } from './complex.js';
import { discretiseOracle } from './discretise.js';
import { type LinearScanOracleResult, linearScanOracle } from './linearScan.js';

/** Flat row-major arrays: a [P,2], dt [P], intervals [B,T], b [B,T,P,2], initialState [N,P,2]. */
export interface IrregularScanOracleInputs {
  a: ArrayLike<number>;
  dt: ArrayLike<number>;
  intervals: ArrayLike<number>;
  b: ArrayLike<number>;
  initialState?: ArrayLike<number>;
}

/** `terms.*`: the size of what is summed in a gradient, which may cancel. */
type Result = Pick<LinearScanOracleResult, 'o' | 'finalState' | 'da' | 'db' | 'dInitialState'> &
  Record<'dDt' | 'dIntervals' | 'terms.da' | 'terms.dDt' | 'terms.dIntervals', Float64Array>;

export function irregularScanOracle(
  { a, dt, intervals, b, initialState }: IrregularScanOracleInputs,
  { B, T, P }: { B: number; T: number; P: number },
  { rule, ...options }: { rule: 'zoh' | 'bilinear'; reverse?: boolean; cuSeqlens?: ArrayLike<number> },
  upstream: { dO?: ArrayLike<number>; dFinalState?: ArrayLike<number> } = {},
): Result {
  const [modes, inputs] = [complexes(a), complexes(b)];
  const none: Complex = [0, 0];
  const places = inputs.map((_, i) => ({ t: Math.floor(i / P), p: i % P }));
  const steps = places.map(({ t, p }) => ({ a: modes[p], dt: dt[p] * intervals[t] }));
  const found = discretiseOracle(
    rule,
    steps.map((step) => ({ ...step, gZeta: none, gPsi: none })),
  );
  const factors = found.map(({ zeta }) => exp(zeta));
  const scan = linearScanOracle(
    { a: factors.flat(), b: found.flatMap(({ psi }, i) => times(psi, inputs[i])), initialState },
    { B, T, D: P, complex: true },
    options,
    upstream,
  );
  const [gA, gB] = [complexes(scan.da), complexes(scan.db)];
  const gradients = discretiseOracle(
    rule,
    steps.map((step, i) => ({
      ...step,
      gZeta: times(conj(factors[i]), gA[i]),
      gPsi: times(conj(inputs[i]), gB[i]),
    })),
  );
  const onModes = modes.map(() => none);
  const [dDt, dIntervals] = [new Float64Array(P), new Float64Array(B * T)];
  const sums = { da: new Float64Array(P), dDt: new Float64Array(P), dIntervals: new Float64Array(B * T) };
  gradients.forEach(({ gA: g, gDt: onStep, termsA, termsDt }, i) => {
    const { t, p } = places[i];
    onModes[p] = plus(onModes[p], g);
    dDt[p] += onStep * intervals[t];
    dIntervals[t] += onStep * dt[p];
    sums.da[p] += termsA;
    sums.dDt[p] += termsDt * intervals[t];
    sums.dIntervals[t] += termsDt * dt[p];
  });
  const db = Float64Array.from(found.flatMap(({ psi }, i) => times(conj(psi), gB[i])));
  const largest = (x: Float64Array) => Float64Array.of(Math.max(...x));
  const terms = {
    'terms.da': largest(sums.da),
    'terms.dDt': largest(sums.dDt),
    'terms.dIntervals': largest(sums.dIntervals),
  };
  return { ...scan, da: Float64Array.from(onModes.flat()), db, dDt, dIntervals, ...terms };
}
