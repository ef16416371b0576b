/**
 * Diagonal state spaces in float64, channel by channel and mode by mode (S4D, https://arxiv.org/abs/2206.11893): x_t = exp(zeta) x_{t-1} + psi b u_t,
 * y_t = 2 Re(c x_t) + d u_t, with all gradients. Forwards in time it is the recurrence; what comes from later tokens is the sum over pairs of
 * tokens, by its definition.
 */
import { sequencesOf } from './sequences.js';
import type { Complex } from './stateSpace.js';

type Numbers = ArrayLike<number>;

/** Sizes: R copies of a and b; `dtPerMode`: dt is [H, M], else [H]. */
export interface SsmDims {
  B: number;
  T: number;
  H: number;
  M: number;
  R: number;
  dtPerMode: boolean;
}

export interface SsmOracleInputs {
  u: Numbers;
  dt: Numbers;
  a: Numbers;
  b: Numbers;
  c: Numbers;
  d?: Numbers;
  cReverse?: Numbers;
  initialState?: Numbers;
}

export interface SsmOracleOptions {
  discretisation?: 'zoh' | 'bilinear';
  /** Each mode stands for a conjugate pair: factor 2. */
  conjugate?: boolean;
  bandlimit?: number;
  rate?: number;
  cuSeqlens?: Numbers;
}

export interface SsmUpstream {
  o?: Numbers;
  finalState?: Numbers;
}

/** `terms.o`, `terms.dx`: the size of what is summed over modes in o, and in the gradient on x, which may cancel; one number. */
export type SsmOracleOutput = Record<
  | 'terms.o'
  | 'terms.ddt'
  | 'terms.da'
  | 'terms.db'
  | 'terms.dc'
  | 'terms.dCReverse'
  | 'o'
  | 'finalState'
  | 'du'
  | 'ddt'
  | 'da'
  | 'db'
  | 'dc'
  | 'dd'
  | 'dCReverse'
  | 'dInitialState',
  Float64Array
>;

const plus = (x: Complex, y: Complex): Complex => [x[0] + y[0], x[1] + y[1]];
const minus = (x: Complex, y: Complex): Complex => [x[0] - y[0], x[1] - y[1]];
const times = (x: Complex, y: Complex): Complex => [x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]];
const scaled = (s: number, x: Complex): Complex => [s * x[0], s * x[1]];
const conj = (x: Complex): Complex => [x[0], -x[1]];
const over = (x: Complex, y: Complex): Complex => scaled(1 / (y[0] ** 2 + y[1] ** 2), times(x, conj(y)));
const exp = (x: Complex): Complex => [Math.exp(x[0]) * Math.cos(x[1]), Math.exp(x[0]) * Math.sin(x[1])];
const at = (x: Numbers, i: number): Complex => [x[2 * i], x[2 * i + 1]];
const add = (x: Float64Array, i: number, value: Complex) => {
  x[2 * i] += value[0];
  x[2 * i + 1] += value[1];
};

/** exp(zeta) and psi of a mode, and what the gradients on them make of those on a and dt. */
interface Discrete {
  step: Complex;
  psi: Complex;
  back: (gZeta: Complex, gPsi: Complex) => { gA: Complex; gDt: number };
}

/** sum of term(k) z^k, for small z. */
function series(z: Complex, term: (k: number) => number): Complex {
  let [power, sum]: [Complex, Complex] = [
    [1, 0],
    [0, 0],
  ];
  for (let k = 0; k < 12; k++) {
    sum = plus(sum, scaled(term(k), power));
    power = times(power, z);
  }
  return sum;
}

const factorial = (n: number): number => (n < 2 ? 1 : n * factorial(n - 1));

function zeroOrderHold(a: Complex, dt: number): Discrete {
  const z = scaled(dt, a);
  const step = exp(z);
  const small = Math.hypot(...z) < 1e-2;
  const psi = small
    ? scaled(
        dt,
        series(z, (k) => 1 / factorial(k + 1)),
      )
    : over(minus(step, [1, 0]), a);
  const slope = small // of psi by a
    ? scaled(
        dt * dt,
        series(z, (k) => (k + 1) / factorial(k + 2)),
      )
    : over(minus(scaled(dt, step), psi), a);
  return {
    step,
    psi,
    back: (gZeta, gPsi) => ({
      gA: plus(scaled(dt, gZeta), times(conj(slope), gPsi)),
      gDt: plus(times(conj(a), gZeta), times(conj(step), gPsi))[0],
    }),
  };
}

function bilinear(a: Complex, dt: number): Discrete {
  const half = scaled(dt / 2, a);
  const below = minus([1, 0], half);
  const psi = over([dt, 0], below);
  return {
    step: over(plus([1, 0], half), below),
    psi,
    back: (gZeta, gPsi) => {
      const gZ = times(conj(over([1, 0], times(below, plus([1, 0], half)))), gZeta);
      return {
        gA: plus(scaled(dt, gZ), times(conj(scaled(0.5, times(psi, psi))), gPsi)),
        gDt: plus(times(conj(a), gZ), times(conj(over([1, 0], times(below, below))), gPsi))[0],
      };
    },
  };
}

/** Outputs and, under the upstreams (zeros where absent), the gradient on every input. */
export function diagonalSsmOracle(
  inputs: SsmOracleInputs,
  dims: SsmDims,
  options: SsmOracleOptions = {},
  upstream: SsmUpstream = {},
): SsmOracleOutput {
  const { B, T, H, M, R, dtPerMode } = dims;
  const { discretisation = 'zoh', conjugate = true, bandlimit, rate = 1, cuSeqlens } = options;
  const sequences = sequencesOf(B, T, cuSeqlens);
  const out: SsmOracleOutput = {
    o: new Float64Array(B * T * H),
    finalState: new Float64Array(sequences.length * H * M * 2),
    du: new Float64Array(B * T * H),
    'terms.o': new Float64Array(1),
    'terms.ddt': new Float64Array(1),
    'terms.da': new Float64Array(1),
    'terms.db': new Float64Array(1),
    'terms.dc': new Float64Array(1),
    'terms.dCReverse': new Float64Array(1),
    ddt: new Float64Array(dtPerMode ? H * M : H),
    da: new Float64Array(R * M * 2),
    db: new Float64Array(R * M * 2),
    dc: new Float64Array(H * M * 2),
    dd: new Float64Array(H),
    dCReverse: new Float64Array(H * M * 2),
    dInitialState: new Float64Array(sequences.length * H * M * 2),
  };
  for (let h = 0; h < H; h++) {
    for (let t = h; t < B * T * H; t += H) {
      const [u, gy, d] = [inputs.u[t], upstream.o?.[t] ?? 0, inputs.d?.[h] ?? 0];
      out.o[t] += d * u;
      out.du[t] += d * gy;
      out.dd[h] += u * gy;
    }
    let sizeOfOutputs = 0;
    for (let m = 0; m < M; m++) {
      const [own, shared, step] = [h * M + m, (h % R) * M + m, dtPerMode ? h * M + m : h];
      const a = at(inputs.a, shared);
      const b = at(inputs.b, shared);
      const open = bandlimit === undefined || (inputs.dt[step] * Math.abs(a[1])) / (2 * Math.PI) < bandlimit / 2;
      const factor = (conjugate ? 2 : 1) * (open ? 1 : 0);
      const discrete = (discretisation === 'zoh' ? zeroOrderHold : bilinear)(a, rate * inputs.dt[step]);
      const mode: Mode = { step: discrete.step, bbar: times(b, discrete.psi), factor };
      const sums: Sums = {
        gStep: [0, 0],
        gZeta: [0, 0],
        gBbar: [0, 0],
        gC: [0, 0],
        gCReverse: [0, 0],
        size: { o: 0, zeta: 0, bbar: 0, c: 0, cReverse: 0 },
      };
      for (const [n, [start, length]] of sequences.entries()) {
        const tokens = Array.from({ length }, (_, t) => (start + t) * H + h);
        const state = n * H * M + own;
        forwards(inputs, upstream, out, mode, at(inputs.c, own), tokens, state, sums);
        if (inputs.cReverse) backwards(inputs, upstream, out, mode, at(inputs.cReverse, own), tokens, sums);
      }
      const gZeta = plus(sums.gZeta, times(conj(mode.step), sums.gStep));
      const { gA, gDt } = discrete.back(gZeta, times(conj(b), sums.gBbar));
      add(out.da, shared, gA);
      add(out.db, shared, times(conj(discrete.psi), sums.gBbar));
      add(out.dc, own, sums.gC);
      add(out.dCReverse, own, sums.gCReverse);
      out.ddt[step] += rate * gDt;
      const { zeta, bbar, c, cReverse } = sums.size;
      const [dt, written] = [rate * inputs.dt[step], bbar / Math.hypot(...mode.bbar) || 0];
      grow(out['terms.ddt'], rate * (Math.hypot(...a) * zeta + bbar / inputs.dt[step]));
      grow(out['terms.da'], dt * (zeta + bbar));
      grow(out['terms.db'], Math.hypot(...discrete.psi) * written);
      grow(out['terms.dc'], c);
      grow(out['terms.dCReverse'], cReverse);
      sizeOfOutputs += sums.size.o;
    }
    grow(out['terms.o'], sizeOfOutputs);
  }
  return out;
}

function grow(largest: Float64Array, size: number): void {
  largest[0] = Math.max(largest[0], size);
}

interface Mode {
  step: Complex;
  bbar: Complex;
  /** Of Re(c x): 2, 1, or 0 above the band limit. */
  factor: number;
}

/** `size`: of the terms in the gradients on zeta, on bbar (times bbar) and on c. */
type Sums = Record<'gStep' | 'gZeta' | 'gBbar' | 'gC' | 'gCReverse', Complex> & {
  size: Record<'o' | 'zeta' | 'bbar' | 'c' | 'cReverse', number>;
};

/** One mode over one sequence: the recurrence, and its adjoint from the last token to the first. `tokens`: where each is in u. */
function forwards(
  { u, initialState }: SsmOracleInputs,
  { o: gy, finalState: gFinal }: SsmUpstream,
  out: SsmOracleOutput,
  { step, bbar, factor }: Mode,
  c: Complex,
  tokens: number[],
  state: number,
  sums: Sums,
): void {
  const states: Complex[] = [initialState ? at(initialState, state) : [0, 0]];
  for (const [t, token] of tokens.entries()) {
    states.push(plus(times(step, states[t]), scaled(u[token], bbar)));
    out.o[token] += factor * times(c, states[t + 1])[0];
    sums.size.o = Math.max(sums.size.o, factor * Math.hypot(...c) * Math.hypot(...states[t + 1]));
  }
  add(out.finalState, state, states[tokens.length]);
  let lambda: Complex = gFinal ? at(gFinal, state) : [0, 0]; // on the state after token t
  for (let t = tokens.length - 1; t >= 0; t--) {
    const token = tokens[t];
    const g = factor * (gy?.[token] ?? 0);
    lambda = plus(lambda, scaled(g, conj(c)));
    sums.gC = plus(sums.gC, scaled(g, conj(states[t + 1])));
    sums.gBbar = plus(sums.gBbar, scaled(u[token], lambda));
    sums.gStep = plus(sums.gStep, times(lambda, conj(states[t])));
    const [stepped, written] = [times(step, states[t]), scaled(u[token], bbar)];
    sums.size.zeta += Math.hypot(...lambda) * Math.hypot(...stepped);
    sums.size.bbar += Math.hypot(...lambda) * Math.hypot(...written);
    sums.size.c += Math.abs(g) * Math.hypot(...states[t + 1]);
    out.du[token] += times(conj(bbar), lambda)[0];
    lambda = times(conj(step), lambda);
  }
  add(out.dInitialState, state, lambda);
}

/** What later tokens add: sum over s > t of factor Re(c step^(s-t-1) bbar) u_s. */
function backwards(
  { u }: SsmOracleInputs,
  { o: gy }: SsmUpstream,
  out: SsmOracleOutput,
  { step, bbar, factor }: Mode,
  c: Complex,
  tokens: number[],
  sums: Sums,
): void {
  let power: Complex = [1, 0];
  const weight = times(c, bbar);
  for (let l = 0; l + 1 < tokens.length; l++, power = times(power, step)) {
    const kernel = factor * times(weight, power)[0];
    let g = 0; // on the kernel at l
    let size = 0;
    for (let t = 0; t + l + 1 < tokens.length; t++) {
      const [here, later] = [tokens[t], tokens[t + l + 1]];
      out.o[here] += kernel * u[later];
      out.du[later] += kernel * (gy?.[here] ?? 0);
      g += factor * (gy?.[here] ?? 0) * u[later];
      size += Math.abs(factor * (gy?.[here] ?? 0) * u[later]);
    }
    size *= Math.hypot(...power);
    sums.size.zeta += l * Math.hypot(...weight) * size;
    sums.size.bbar += Math.hypot(...weight) * size;
    sums.size.cReverse += Math.hypot(...bbar) * size;
    const gWeight = scaled(g, conj(power));
    sums.gCReverse = plus(sums.gCReverse, times(conj(bbar), gWeight));
    sums.gBbar = plus(sums.gBbar, times(conj(c), gWeight));
    sums.gZeta = plus(sums.gZeta, scaled(l, times(conj(weight), gWeight)));
  }
}
