/**
 * Gated linear attention in float64, straight from the recurrence (Yang et al. 2023, https://arxiv.org/abs/2312.06635, eq. 3):
 *
 *   S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T        o_t = scale * S_t^T q_t
 *
 * and its gradients by running the adjoint of the state D_t = dL/dS_t backwards:
 *
 *   D_t  = scale * q_t dO_t^T + diag(exp(g_{t+1})) D_{t+1}        D_T = scale * q_T dO_T^T + dFinalState
 *   dq_t = scale * S_t dO_t      dk_t = D_t v_t      dv_t = D_t^T k_t      dg_t = rowsum(diag(exp(g_t)) S_{t-1} * D_t)
 */
import { sequencesOf } from './sequences.js';

/** Sizes: batch, tokens, heads, key width, value width. */
export interface GlaDims {
  B: number;
  T: number;
  H: number;
  K: number;
  V: number;
}

/** Flat row-major arrays: q, k [B,T,H,K]; v [B,T,H,V]; g [B,T,H,K] or [B,T,H] (told apart by length); initialState [N,H,K,V]. */
export interface GlaOracleInputs {
  q: ArrayLike<number>;
  k: ArrayLike<number>;
  v: ArrayLike<number>;
  g: ArrayLike<number>;
  initialState?: ArrayLike<number>;
}

/** Gradients on the outputs; an absent one is zero. dO [B,T,H,V], dFinalState [N,H,K,V]. */
export interface GlaUpstream {
  dO?: ArrayLike<number>;
  dFinalState?: ArrayLike<number>;
}

/** o [B,T,H,V], finalState [N,H,K,V] and the gradient on every input, in that input's layout. */
export interface GlaOracleResult {
  o: Float64Array;
  finalState: Float64Array;
  dq: Float64Array;
  dk: Float64Array;
  dv: Float64Array;
  dg: Float64Array;
  dInitialState: Float64Array;
}

/**
 * @param options scale: default K^-0.5; cuSeqlens: offsets of packed documents (needs B = 1), each run alone with its own state
 */
export function glaOracle(
  inputs: GlaOracleInputs,
  dims: GlaDims,
  options: { scale?: number; cuSeqlens?: ArrayLike<number> } = {},
  upstream: GlaUpstream = {},
): GlaOracleResult {
  const { B, T, H, K, V } = dims;
  const scale = options.scale ?? K ** -0.5;
  const sequences = sequencesOf(B, T, options.cuSeqlens);
  const result: GlaOracleResult = {
    o: new Float64Array(B * T * H * V),
    finalState: new Float64Array(sequences.length * H * K * V),
    dq: new Float64Array(B * T * H * K),
    dk: new Float64Array(B * T * H * K),
    dv: new Float64Array(B * T * H * V),
    dg: new Float64Array(inputs.g.length),
    dInitialState: new Float64Array(sequences.length * H * K * V),
  };
  sequences.forEach(([start, length], n) => {
    for (let h = 0; h < H; h++)
      runHead({ ...dims, scale, start, length, head: h, state: (n * H + h) * K * V }, inputs, upstream, result);
  });
  return result;
}

interface Head extends GlaDims {
  scale: number;
  start: number;
  length: number;
  head: number;
  /** Where this head's state starts in initialState and finalState. */
  state: number;
}

function runHead(at: Head, { q, k, v, g, initialState }: GlaOracleInputs, upstream: GlaUpstream, out: GlaOracleResult) {
  const { B, T, H, K, V, scale, start, length } = at;
  const perHead = g.length === B * T * H;
  const row = (t: number) => (start + t) * H + at.head;
  const gate = (t: number, i: number) => (perHead ? row(t) : row(t) * K + i);
  const cells = (body: (i: number, j: number) => void) => {
    for (let i = 0; i < K; i++) for (let j = 0; j < V; j++) body(i, j);
  };

  // Forward. states[t] is the state before token t.
  const states = [Float64Array.from({ length: K * V }, (_, c) => initialState?.[at.state + c] ?? 0)];
  for (let t = 0; t < length; t++) {
    const S = new Float64Array(K * V);
    cells((i, j) => {
      S[i * V + j] = Math.exp(g[gate(t, i)]) * states[t][i * V + j] + k[row(t) * K + i] * v[row(t) * V + j];
      out.o[row(t) * V + j] += scale * q[row(t) * K + i] * S[i * V + j];
    });
    states.push(S);
  }
  out.finalState.set(states[length], at.state);

  // Backward. D is the gradient on the state after token t.
  const { dO, dFinalState } = upstream;
  const D = Float64Array.from({ length: K * V }, (_, c) => dFinalState?.[at.state + c] ?? 0);
  for (let t = length - 1; t >= 0; t--) {
    cells((i, j) => {
      const c = i * V + j;
      const d = dO?.[row(t) * V + j] ?? 0;
      D[c] += scale * q[row(t) * K + i] * d;
      out.dq[row(t) * K + i] += scale * states[t + 1][c] * d;
      out.dk[row(t) * K + i] += D[c] * v[row(t) * V + j];
      out.dv[row(t) * V + j] += D[c] * k[row(t) * K + i];
      const decay = Math.exp(g[gate(t, i)]);
      out.dg[gate(t, i)] += decay * states[t][c] * D[c];
      D[c] *= decay;
    });
  }
  out.dInitialState.set(D, at.state);
}
