/**
 * A mixture of experts in float64, token by token from its definition, with gradients from the chain rule; nothing of `src` is used.
 *
 *   s_e = sigmoid(logit_e)   chosen: the k largest s_e + bias_e   w_e = f s_e / Z, Z = sum of the chosen s (or w_e = f s_e)
 *   y = sum_e w_e W2_e a_e,  a_e = silu(W1_e x) * (W3_e x)
 */

type Numbers = ArrayLike<number>;

export interface MoeDims {
  /** Tokens, width, experts, width of an expert, experts of a token. */
  N: number;
  D: number;
  E: number;
  I: number;
  k: number;
}

export interface MoeOracleOptions {
  renormalize?: boolean;
  factor?: number;
  groups?: number;
  topGroups?: number;
}

export interface MoeOracleInputs {
  /** [N, D] */
  x: Numbers;
  /** [N, E] */
  logits: Numbers;
  /** [E] */
  bias?: Numbers;
  /** [E, I, D], [E, D, I], [E, I, D] */
  w1: Numbers;
  w2: Numbers;
  w3: Numbers;
}

const sigmoid = (x: number) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

/** Numbers of the k largest, of equals the first; `gap`: how far the last of them is above the next, unless both are equal. */
function largest(values: readonly number[], k: number): { ids: number[]; gap: number } {
  const order = values.map((value, i) => ({ value, i })).sort((a, b) => b.value - a.value || a.i - b.i);
  const gap = k < order.length ? order[k - 1].value - order[k].value : 0;
  return { ids: order.slice(0, k).map(({ i }) => i), gap: gap === 0 ? Number.POSITIVE_INFINITY : gap };
}

/** The experts that a token chooses, best first, and the least gap that decided. */
function choose(scores: readonly number[], k: number, { groups = 1, topGroups = 1 }: MoeOracleOptions) {
  if (groups === 1) return largest(scores, k);
  const size = scores.length / groups;
  const sums = Array.from({ length: groups }, (_, g) => {
    const own = scores.slice(g * size, (g + 1) * size);
    return largest(own, 2).ids.reduce((sum, i) => sum + own[i], 0);
  });
  const kept = largest(sums, topGroups);
  const masked = scores.map((s, e) => (kept.ids.includes(Math.floor(e / size)) ? s : 0));
  const chosen = largest(masked, k);
  return { ids: chosen.ids, gap: Math.min(kept.gap, chosen.gap) };
}

/**
 * `load`: E * (tokens of each expert) - N * k. `routing`: the weight of every expert for every token, [N, E]. `gap`: how close a choice
 * was to another one.
 */
export function moeOracle(
  { x, logits, bias, w1, w2, w3 }: MoeOracleInputs,
  { N, D, E, I, k }: MoeDims,
  dy: Numbers,
  options: MoeOracleOptions = {},
) {
  const { renormalize = true, factor = 1 } = options;
  const array = (n: number) => new Float64Array(n);
  const [y, dx, routing, dLogits] = [array(N * D), array(N * D), array(N * E), array(N * E)];
  const [dW1, dW2, dW3, load] = [array(E * I * D), array(E * D * I), array(E * I * D), array(E).fill(-N * k)];
  let gap = Number.POSITIVE_INFINITY;
  for (let n = 0; n < N; n++) {
    const s = Array.from({ length: E }, (_, e) => sigmoid(logits[n * E + e]));
    const { ids: chosen, gap: own } = choose(
      s.map((score, e) => score + (bias?.[e] ?? 0)),
      k,
      options,
    );
    gap = Math.min(gap, own);
    const Z = renormalize ? chosen.reduce((sum, e) => sum + s[e], 1e-20) : 1;
    const dw = new Map<number, number>();
    for (const e of chosen) {
      load[e] += E;
      const w = (factor * s[e]) / Z;
      routing[n * E + e] = w;
      const row = (i: number) => (e * I + i) * D;
      const dot = (matrix: Numbers, i: number) => {
        let sum = 0;
        for (let d = 0; d < D; d++) sum += matrix[row(i) + d] * x[n * D + d];
        return sum;
      };
      let dWeight = 0;
      for (let i = 0; i < I; i++) {
        const [gate, up] = [dot(w1, i), dot(w3, i)];
        const silu = gate * sigmoid(gate);
        let da = 0;
        for (let d = 0; d < D; d++) {
          const at = (e * D + d) * I + i;
          y[n * D + d] += w * w2[at] * silu * up;
          da += dy[n * D + d] * w2[at];
          dW2[at] += w * dy[n * D + d] * silu * up;
        }
        dWeight += da * silu * up;
        const dGate = w * da * up * sigmoid(gate) * (1 + gate * sigmoid(-gate));
        const dUp = w * da * silu;
        for (let d = 0; d < D; d++) {
          dW1[row(i) + d] += dGate * x[n * D + d];
          dW3[row(i) + d] += dUp * x[n * D + d];
          dx[n * D + d] += dGate * w1[row(i) + d] + dUp * w3[row(i) + d];
        }
      }
      dw.set(e, dWeight);
    }
    const mean = chosen.reduce((sum, e) => sum + (dw.get(e) as number) * s[e], 0) / Z;
    for (const e of chosen) {
      const ds = (factor / Z) * ((dw.get(e) as number) - (renormalize ? mean : 0));
      dLogits[n * E + e] = ds * s[e] * sigmoid(-logits[n * E + e]);
    }
  }
  return { y, routing, load, gap, grads: { x: dx, logits: dLogits, w1: dW1, w2: dW2, w3: dW3 } };
}
