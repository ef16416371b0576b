/**
 * Softmax attention in float64, query by query from its definition, and its gradients from the chain rule; nothing of `src` is used.
 *
 *   s_ij = scale * q_i . k_j + bias_ij     P_ij = exp(s_ij) / sum_j exp(s_ij)     o_i = sum_j P_ij v_j     lse_i = log sum_j exp(s_ij)
 *   dP_ij = dO_i . v_j     dS_ij = P_ij (dP_ij - sum_l P_il dP_il + dlse_i)     dq_i = scale * sum_j dS_ij k_j     ...
 */

/** Batch, queries, keys, query heads, key heads, key width, value width. */
export interface AttentionDims {
  B: number;
  T: number;
  S: number;
  H: number;
  G: number;
  K: number;
  V: number;
}

export interface AttentionOracleOptions {
  /** Default true. */
  causal?: boolean;
  window?: number;
  cuSeqlens?: ArrayLike<number>;
  /** Default K^-0.5. */
  scale?: number;
  /** Batch and heads of the bias: 1 or all; default all. */
  biasShape?: readonly [batch: number, heads: number];
}

/** Flat row-major arrays: q [B,T,H,K], k [B,S,G,K], v [B,S,G,V], bias [B or 1,H or 1,T,S], keyMask [B,S] (0: hidden). */
export interface AttentionOracleInputs {
  q: ArrayLike<number>;
  k: ArrayLike<number>;
  v: ArrayLike<number>;
  bias?: ArrayLike<number>;
  keyMask?: ArrayLike<number>;
}

export interface AttentionOracleResult {
  /** [B,T,H,V] */
  o: Float64Array;
  /** [B,T,H] */
  lse: Float64Array;
  dq: Float64Array;
  dk: Float64Array;
  dv: Float64Array;
  /** Summed over what shares the bias. */
  dBias: Float64Array;
}

/** @param upstream dO [B,T,H,V] and dLse [B,T,H]; an absent one is zero */
export function attentionOracle(
  { q, k, v, bias, keyMask }: AttentionOracleInputs,
  { B, T, S, H, G, K, V }: AttentionDims,
  options: AttentionOracleOptions = {},
  { dO, dLse }: { dO?: ArrayLike<number>; dLse?: ArrayLike<number> } = {},
): AttentionOracleResult {
  const scale = options.scale ?? K ** -0.5;
  const [o, lse] = [new Float64Array(B * T * H * V), new Float64Array(B * T * H)];
  const [dq, dk, dv, dBias] = [q, k, v, bias ?? []].map((x) => new Float64Array(x.length));
  const [biasBatch, biasHeads] = options.biasShape ?? [B, H];
  for (let row = 0; row < B * T * H; row++) {
    const [b, t, h] = [Math.floor(row / (T * H)), Math.floor(row / H) % T, row % H];
    const biasRow = (((biasBatch === 1 ? 0 : b) * biasHeads + (biasHeads === 1 ? 0 : h)) * T + t) * S;
    const biasOf = (s: number) => bias?.[biasRow + s] ?? 0;
    const seen = visibleKeys(t, T, S, options).filter(
      (s) => (keyMask?.[b * S + s] ?? 1) !== 0 && biasOf(s) !== Number.NEGATIVE_INFINITY,
    );
    const keyRow = (s: number) => (b * S + s) * G + Math.floor((h * G) / H);
    const scores = seen.map((s) => scale * dot(q, row * K, k, keyRow(s) * K, K) + biasOf(s));
    const largest = scores.reduce((a, x) => Math.max(a, x), Number.NEGATIVE_INFINITY);
    const sum = scores.reduce((a, x) => a + Math.exp(x - largest), 0);
    lse[row] = seen.length === 0 ? Number.NEGATIVE_INFINITY : largest + Math.log(sum);
    const P = scores.map((x) => Math.exp(x - largest) / sum);
    seen.forEach((s, n) => {
      for (let i = 0; i < V; i++) o[row * V + i] += P[n] * v[keyRow(s) * V + i];
    });

    const dP = seen.map((s) => (dO ? dot(dO, row * V, v, keyRow(s) * V, V) : 0));
    const mean = P.reduce((a, p, n) => a + p * dP[n], 0);
    seen.forEach((s, n) => {
      const dS = P[n] * (dP[n] - mean + (dLse?.[row] ?? 0));
      if (bias) dBias[biasRow + s] += dS;
      for (let i = 0; i < K; i++) {
        dq[row * K + i] += scale * dS * k[keyRow(s) * K + i];
        dk[keyRow(s) * K + i] += scale * dS * q[row * K + i];
      }
      for (let i = 0; i < V; i++) dv[keyRow(s) * V + i] += P[n] * (dO?.[row * V + i] ?? 0);
    });
  }
  return { o, lse, dq, dk, dv, dBias };
}

/** The keys that query t sees, in order. */
function visibleKeys(
  t: number,
  T: number,
  S: number,
  { causal = true, window, cuSeqlens }: AttentionOracleOptions,
): number[] {
  const position = S - T + t;
  return Array.from({ length: S }, (_, s) => s).filter(
    (s) =>
      (!causal || s <= position) &&
      (window === undefined || s > position - window) &&
      (!cuSeqlens || documentOf(s, cuSeqlens) === documentOf(position, cuSeqlens)),
  );
}

function documentOf(token: number, cuSeqlens: ArrayLike<number>): number {
  return Array.from(cuSeqlens).filter((start) => start <= token).length;
}

function dot(a: ArrayLike<number>, atA: number, b: ArrayLike<number>, atB: number, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += a[atA + i] * b[atB + i];
  return sum;
}
