/**
 * The layer of Gated KalmaNet in float64, one sequence without a past: projections, short convolutions, shared heads, norms and gates as
 * published (https://github.com/awslabs/hybrid-model-factory), around the recurrence. Uses nothing of `src`.
 */
import { type GatedKalmaNetOracleOptions, gatedKalmaNetOracle } from './gatedKalmaNet.js';
import { causalConv1dOracle, kdaGateOracle, normOracle } from './primitives.js';
import { linearOracle } from './product.js';

type Numbers = ArrayLike<number>;
type Name = 'q' | 'k' | 'v';

export interface GatedKalmaNetLayerSizes {
  T: number;
  headDim: number;
  /** Heads of q, k and v. */
  heads: Record<Name, number>;
}

export interface GatedKalmaNetLayerOptions {
  /** v is the bare projection. */
  bareV: boolean;
  normEps: number;
  recurrence: GatedKalmaNetOracleOptions;
}

/**
 * @param x [T, hiddenSize]
 * @param weights by their published names; a part without weights is left out, but a convolution, which leaves its SiLU
 * @returns y [T, hiddenSize]; finalKk, finalKv [H, headDim, headDim]
 */
export function gatedKalmaNetLayerOracle(
  x: Numbers,
  weights: Record<string, Numbers | undefined>,
  { T, headDim: D, heads }: GatedKalmaNetLayerSizes,
  { bareV, normEps, recurrence }: GatedKalmaNetLayerOptions,
) {
  const H = Math.max(heads.q, heads.k, heads.v);
  const times = (input: Numbers, name: string) =>
    multiply(input, T, weights[`${name}.weight`], weights[`${name}.bias`]);
  const headsOf = (name: Name) => {
    const p = times(x, `${name}_proj`) as Float64Array;
    const y =
      name === 'v' && bareV ? p : convolved(p, T, weights[`${name}_conv1d.weight`], weights[`${name}_conv1d.bias`]);
    const all = shared(y, { T, D, G: heads[name], H }, weights[`${name}_rep`]);
    const low = times(y, `proj_${name}.linearA`);
    const own = low && times(low.map(silu), `proj_${name}.linearB`);
    return own ? all.map((z, i) => z + own[i]) : all;
  };
  const strength = (name: string) => times(x, name)?.map((z) => 1 / (1 + Math.exp(-z)));
  const beta = strength('b_proj');
  const write = (rows: Float64Array) => rows.map((z, i) => z * (beta ? beta[Math.floor(i / D)] + 1e-6 : 1));
  const f = times(x, 'a_proj');
  const gates = f && { f, aLog: weights.A_log, dtBias: weights.dt_bias as Numbers };
  const { o, finalKk, finalKv } = gatedKalmaNetOracle(
    {
      q: unitRows(headsOf('q'), D),
      k: write(unitRows(headsOf('k'), D)),
      v: write(headsOf('v')),
      g: gates ? kdaGateOracle(gates, { H, K: 1 }, new Float64Array(T * H)).g : new Float64Array(T * H),
      alpha: strength('alpha_proj') ?? new Float64Array(T * H).fill(1),
    },
    { B: 1, T, H, K: D, V: D },
    recurrence,
  );
  const norm = { D, eps: normEps, meanFactor: 1 / D, activation: 'silu' as const };
  const scaling = { weight: weights['o_norm.weight'], gate: times(x, 'g_proj') };
  const { y } = normOracle({ x: o, ...scaling }, norm, new Float64Array(o.length));
  return { y: times(y, 'o_proj') as Float64Array, finalKk, finalKv };
}

const silu = (z: number) => z / (1 + Math.exp(-z));

/** x [T, I] times weight [O, I], plus bias [O]; undefined without a weight. */
function multiply(x: Numbers, T: number, weight: Numbers | undefined, bias: Numbers | undefined) {
  if (!weight) return undefined;
  const I = x.length / T;
  const O = weight.length / I;
  return linearOracle({ x, weight, bias }, { N: T, I, O }, new Float64Array(T * O)).y;
}

/** x [T, D] through a convolution with taps [D, W] and SiLU, or SiLU alone. */
function convolved(x: Float64Array, T: number, taps: Numbers | undefined, bias: Numbers | undefined): Float64Array {
  if (!taps) return x.map(silu);
  const D = x.length / T;
  const upstream = { dy: new Float64Array(T * D), dFinalState: new Float64Array(taps.length) };
  const size = { T, D, W: taps.length / D, activation: 'silu' as const };
  return causalConv1dOracle({ x, weight: taps, bias }, size, upstream).o;
}

/** Heads [T, G, D] to [T, H, D]: each for H / G heads in a row, or mixed by [H, G]. */
function shared(y: Float64Array, { T, D, G, H }: Record<'T' | 'D' | 'G' | 'H', number>, mix?: Numbers): Float64Array {
  const share = (h: number, g: number) => (mix ? mix[h * G + g] : +(Math.floor(h / (H / G)) === g));
  const all = new Float64Array(T * H * D);
  for (let t = 0; t < T; t++)
    for (let h = 0; h < H; h++)
      for (let g = 0; g < G; g++)
        for (let d = 0; d < D; d++) all[(t * H + h) * D + d] += share(h, g) * y[(t * G + g) * D + d];
  return all;
}

/** x / (|x| + 1e-6) for rows of D numbers. */
function unitRows(x: Float64Array, D: number): Float64Array {
  const norm = (row: number) => Math.hypot(...x.subarray(row * D, (row + 1) * D));
  return x.map((y, i) => y / (norm(Math.floor(i / D)) + 1e-6));
}
