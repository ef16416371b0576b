/** The small ops in float64 on flat row-major arrays, each with its gradients written out by hand. Uses nothing of `src`. */

type Numbers = ArrayLike<number>;

const sigmoid = (x: number) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
const softplus = (x: number) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

/** An activation and its slope. */
const activations = {
  none: (x: number) => [x, 1],
  silu: (x: number) => [x * sigmoid(x), sigmoid(x) * (1 + x * sigmoid(-x))],
  sigmoid: (x: number) => [sigmoid(x), sigmoid(x) * sigmoid(-x)],
} as const;
export type Activation = keyof typeof activations;

/** y = silu(gate) * up. */
export function swiGluOracle(gate: Numbers, up: Numbers, dy: Numbers) {
  const n = gate.length;
  const [y, dGate, dUp] = [new Float64Array(n), new Float64Array(n), new Float64Array(n)];
  for (let i = 0; i < n; i++) {
    const [a, slope] = activations.silu(gate[i]);
    y[i] = a * up[i];
    dGate[i] = dy[i] * up[i] * slope;
    dUp[i] = dy[i] * a;
  }
  return { y, dGate, dUp };
}

/**
 * y = x * r * weight * act(gate) with r = (meanFactor * sum(x^2) + eps)^-1/2, row by row (rows of `D`).
 * With u = dy * weight * act(gate):  dx = r * u - r^3 * meanFactor * x * (x . u). `dxTerms` is the largest |r * u|, which may
 * cancel almost wholly: a rounding error of dx is relative to it.
 */
export function normOracle(
  { x, gate, weight }: { x: Numbers; gate?: Numbers; weight?: Numbers },
  { D, eps, meanFactor, activation = 'none' }: { D: number; eps: number; meanFactor: number; activation?: Activation },
  dy: Numbers,
) {
  const n = x.length;
  const [y, dx, dGate, dWeight] = [n, n, n, D].map((size) => new Float64Array(size));
  let dxTerms = 0;
  for (let row = 0; row < n; row += D) {
    let [squares, dot] = [0, 0];
    const act = Array.from({ length: D }, (_, i) => (gate ? activations[activation](gate[row + i]) : [1, 0]));
    const u = Array.from({ length: D }, (_, i) => dy[row + i] * (weight?.[i] ?? 1) * act[i][0]);
    for (let i = 0; i < D; i++) {
      squares += x[row + i] ** 2;
      dot += x[row + i] * u[i];
    }
    const r = (meanFactor * squares + eps) ** -0.5;
    for (let i = 0; i < D; i++) {
      const [at, w] = [row + i, weight?.[i] ?? 1];
      y[at] = x[at] * r * w * act[i][0];
      dxTerms = Math.max(dxTerms, Math.abs(r * u[i]));
      dx[at] = r * u[i] - r ** 3 * meanFactor * x[at] * dot;
      dGate[at] = dy[at] * x[at] * r * w * act[i][1];
      dWeight[i] += dy[at] * x[at] * r * act[i][0];
    }
  }
  return { y, dx, dGate, dWeight, dxTerms };
}

/**
 * One sequence of the depthwise causal convolution: x [T, D], weight [D, W], bias [D], initialState [D, W];
 * z_t = bias + sum_j weight_j * input_{t - W + 1 + j}, where the inputs before x are those of the state (its oldest is never read).
 */
export function causalConv1dOracle(
  { x, weight, bias, initialState }: { x: Numbers; weight: Numbers; bias?: Numbers; initialState?: Numbers },
  { T, D, W, activation }: { T: number; D: number; W: number; activation: Activation },
  { dy, dFinalState }: { dy: Numbers; dFinalState: Numbers },
) {
  const array = (n: number) => new Float64Array(n);
  const [o, finalState, dx, dWeight] = [array(T * D), array(D * W), array(T * D), array(D * W)];
  const [dBias, dInitialState] = [array(D), array(D * W)];
  for (let d = 0; d < D; d++) {
    // All inputs of the channel in order: the W of the state, then x; and the gradient on each.
    const input = Array.from({ length: W + T }, (_, i) =>
      i < W ? (initialState?.[d * W + i] ?? 0) : x[(i - W) * D + d],
    );
    const dInput = array(W + T);
    for (let t = 0; t < T; t++) {
      let z = bias?.[d] ?? 0;
      for (let j = 0; j < W; j++) z += weight[d * W + j] * input[t + 1 + j];
      const [y, slope] = activations[activation](z);
      o[t * D + d] = y;
      const dz = dy[t * D + d] * slope;
      dBias[d] += dz;
      for (let j = 0; j < W; j++) {
        dWeight[d * W + j] += dz * input[t + 1 + j];
        dInput[t + 1 + j] += dz * weight[d * W + j];
      }
    }
    for (let i = 0; i < W; i++) {
      finalState[d * W + i] = input[T + i];
      dInput[T + i] += dFinalState[d * W + i];
    }
    for (let i = 0; i < W; i++) dInitialState[d * W + i] = dInput[i];
    for (let t = 0; t < T; t++) dx[t * D + d] = dInput[W + t];
  }
  return { o, finalState, dx, dWeight, dBias, dInitialState };
}

/** g = max(logsigmoid(x) / normalizer, clampMin). */
export function logSigmoidGateOracle(
  x: Numbers,
  { normalizer, clampMin = Number.NEGATIVE_INFINITY }: { normalizer: number; clampMin?: number },
  dy: Numbers,
) {
  const free = Float64Array.from(x, (v) => -softplus(-v) / normalizer);
  const y = free.map((v) => Math.max(v, clampMin));
  const dx = free.map((v, i) => (v < clampMin ? 0 : (dy[i] * sigmoid(-x[i])) / normalizer));
  return { y, dx };
}

/**
 * KDA gate over rows of [H, K]: z = f + dtBias, a = exp(aLog); g = -a softplus(z), or lowerBound * sigmoid(a z).
 * `terms` is the largest sum of absolute values behind one entry of dALog or dDtBias, to which their rounding error is relative.
 */
export function kdaGateOracle(
  { f, aLog, dtBias }: { f: Numbers; aLog?: Numbers; dtBias: Numbers },
  { H, K, lowerBound }: { H: number; K: number; lowerBound?: number },
  dg: Numbers,
) {
  const [g, df, dALog] = [new Float64Array(f.length), new Float64Array(f.length), new Float64Array(H)];
  const dDtBias = new Float64Array(H * K);
  const absolute = new Float64Array(H * K);
  for (let i = 0; i < f.length; i++) {
    const channel = i % (H * K);
    const h = Math.floor(channel / K);
    const [a, z] = [Math.exp(aLog?.[h] ?? 0), f[i] + dtBias[channel]];
    const s = sigmoid(lowerBound === undefined ? z : a * z);
    g[i] = lowerBound === undefined ? -a * softplus(z) : lowerBound * s;
    df[i] = dg[i] * (lowerBound === undefined ? -a * s : a * lowerBound * s * sigmoid(-a * z));
    dALog[h] += lowerBound === undefined ? dg[i] * g[i] : df[i] * z;
    dDtBias[channel] += df[i];
    absolute[channel] += Math.max(Math.abs(df[i]), Math.abs(df[i] * z), Math.abs(dg[i] * g[i]));
  }
  const perHead = Array.from({ length: H }, (_, h) => absolute.subarray(h * K, h * K + K).reduce((a, b) => a + b));
  return { g, df, dALog, dDtBias, terms: Math.max(...perHead) };
}

/** Rotary embedding of x [tokens, H, D] at given positions, and the gradient: y is linear in x, so dx turns dy back. */
export function rotaryOracle(
  x: Numbers,
  { H, D, base }: { H: number; D: number; base: number },
  positions: Numbers,
  dy: Numbers,
) {
  const [y, dx] = [new Float64Array(x.length), new Float64Array(x.length)];
  for (let t = 0; t < positions.length; t++)
    for (let h = 0; h < H; h++)
      for (let i = 0; i < D / 2; i++) {
        const angle = positions[t] * base ** ((-2 * i) / D);
        const [c, s] = [Math.cos(angle), Math.sin(angle)];
        const [a, b] = [(t * H + h) * D + i, (t * H + h) * D + i + D / 2];
        [y[a], y[b]] = [x[a] * c - x[b] * s, x[b] * c + x[a] * s];
        [dx[a], dx[b]] = [dy[a] * c + dy[b] * s, dy[b] * c - dy[a] * s];
      }
  return { y, dx };
}

/** The normal distribution function: the series of erf near 0, else the continued fraction of erfc, both to about 1e-15 relative. */
export function normalDistribution(x: number): number {
  if (x > 0) return 1 - normalDistribution(-x);
  const z = -x / Math.SQRT2;
  if (z < 2) {
    let [term, sum] = [z, z];
    for (let n = 1; n < 60; n++) {
      term *= (-z * z) / n;
      sum += term / (2 * n + 1);
    }
    return 0.5 - sum / Math.sqrt(Math.PI);
  }
  let fraction = z;
  for (let n = 120; n > 0; n--) fraction = z + n / 2 / fraction;
  return Math.exp(-z * z) / (2 * Math.sqrt(Math.PI) * fraction);
}

/** y = x * P(x), P the normal distribution function or 0.5 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))). */
export function geluOracle(x: Numbers, { tanh }: { tanh: boolean }, dy: Numbers) {
  const [y, dx] = [new Float64Array(x.length), new Float64Array(x.length)];
  for (let i = 0; i < x.length; i++) {
    const v = x[i];
    const z = 2 * Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3);
    const p = tanh ? sigmoid(z) : normalDistribution(v);
    const slope = tanh
      ? sigmoid(z) * sigmoid(-z) * 2 * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * v * v)
      : Math.exp(-0.5 * v * v) / Math.sqrt(2 * Math.PI);
    y[i] = v * p;
    dx[i] = dy[i] * (p + v * slope);
  }
  return { y, dx };
}

/** y = value * sigmoid(gate). */
export function gluOracle(value: Numbers, gate: Numbers, dy: Numbers) {
  const [y, dValue, dGate] = [1, 2, 3].map(() => new Float64Array(value.length));
  for (let i = 0; i < value.length; i++) {
    y[i] = value[i] * sigmoid(gate[i]);
    dValue[i] = dy[i] * sigmoid(gate[i]);
    dGate[i] = dy[i] * value[i] * sigmoid(gate[i]) * sigmoid(-gate[i]);
  }
  return { y, dValue, dGate };
}

/**
 * y = n * weight + bias with n = (x - mean) * (variance + eps)^-1/2 over rows of D: mean and biased variance of the row (`layer`) or of
 * the column (`batch`), or as given (`mean`, `variance` per column). With u = dy * weight: dx = r (u - mean(u) - n mean(u n)), both means
 * over what the statistics are of; r u alone for given ones. `dxTerms` is the largest |r u|, to which a rounding error is relative;
 * `offset` the largest |mean| r: a mean in float32 shifts n by so many roundings.
 */
export function standardiseOracle(
  {
    x,
    weight,
    bias,
    mean,
    variance,
  }: Partial<Record<'weight' | 'bias' | 'mean' | 'variance', Numbers>> & { x: Numbers },
  { D, eps, over }: { D: number; eps: number; over: 'layer' | 'batch' },
  dy: Numbers,
) {
  const size = x.length;
  const rows = size / D;
  const [y, dx, dWeight, dBias] = [size, size, D, D].map((n) => new Float64Array(n));
  const groups = over === 'layer' ? rows : D;
  const [means, variances] = [new Float64Array(groups), new Float64Array(groups)];
  let [dxTerms, offset] = [0, 0];
  for (let group = 0; group < groups; group++) {
    const count = size / groups;
    const at = Array.from({ length: count }, (_, i) => (over === 'layer' ? group * D + i : i * D + group));
    const average = (f: (i: number) => number) => at.reduce((sum, i) => sum + f(i), 0) / count;
    const m = mean?.[group] ?? average((i) => x[i]);
    const v = variance?.[group] ?? average((i) => (x[i] - m) ** 2);
    const r = (v + eps) ** -0.5;
    offset = Math.max(offset, Math.abs(m) * r);
    const n = (i: number) => (x[i] - m) * r;
    const u = (i: number) => dy[i] * (weight?.[i % D] ?? 1);
    const [meanU, meanUn] = mean ? [0, 0] : [average(u), average((i) => u(i) * n(i))];
    for (const i of at) {
      y[i] = n(i) * (weight?.[i % D] ?? 1) + (bias?.[i % D] ?? 0);
      dx[i] = r * (u(i) - meanU - n(i) * meanUn);
      dxTerms = Math.max(dxTerms, Math.abs(r * u(i)));
      dWeight[i % D] += dy[i] * n(i);
      dBias[i % D] += dy[i];
    }
    [means[group], variances[group]] = [m, v];
  }
  return { y, dx, dWeight, dBias, mean: means, variance: variances, dxTerms, offset };
}

/** keep = bound + (1 - bound) sigmoid(f), input = silu(i) (1 - keep), over rows of D; `boundTerms`: the largest sum of |terms| behind dBound. */
export function mlgruGateOracle(
  { f, i, bound }: { f: Numbers; i: Numbers; bound?: Numbers },
  { D }: { D: number },
  { dKeep, dInput }: { dKeep: Numbers; dInput: Numbers },
) {
  const n = f.length;
  const [keep, input, df, di, dBound, terms] = [n, n, n, n, D, D].map((size) => new Float64Array(size));
  for (let at = 0; at < n; at++) {
    const q = 1 - (bound?.[at % D] ?? 0);
    const [act, slope] = activations.silu(i[at]);
    const forget = q * sigmoid(-f[at]);
    keep[at] = 1 - forget;
    input[at] = act * forget;
    const dForget = dInput[at] * act - dKeep[at];
    df[at] = -dForget * q * sigmoid(f[at]) * sigmoid(-f[at]);
    di[at] = dInput[at] * forget * slope;
    dBound[at % D] -= dForget * sigmoid(-f[at]);
    terms[at % D] += Math.abs(dForget);
  }
  return { keep, input, df, di, dBound, boundTerms: Math.max(...terms) };
}
