/**
 * The delta rules in float64, straight from the recurrences: Kimi Delta Attention (https://arxiv.org/abs/2510.26692, eq. 1), and with
 * one gate per head Gated DeltaNet (https://arxiv.org/abs/2412.06464), without a gate DeltaNet (https://arxiv.org/abs/2406.06484):
 *
 *   R_t = diag(exp(g_t)) S_{t-1}      delta_t = beta_t (v_t - R_t^T k_t)      S_t = R_t + k_t delta_t^T      o_t = scale * S_t^T q_t
 *
 * and their gradients by running the adjoint of the state D_t = dL/dS_t backwards (e_t = dL/d(v_t - R_t^T k_t), P_t = dL/dR_t):
 *
 *   D_t     = scale * q_t dO_t^T + diag(exp(g_{t+1})) P_{t+1}        D_T = scale * q_T dO_T^T + dFinalState
 *   e_t     = beta_t D_t^T k_t       P_t = D_t - k_t e_t^T
 *   dq_t    = scale * S_t dO_t       dk_t = D_t delta_t - R_t e_t    dv_t = e_t
 *   dbeta_t = (D_t^T k_t) . (v_t - R_t^T k_t)                        dg_t = rowsum(R_t * P_t)
 */
import { sequencesOf } from './sequences.js';

/** Sizes: batch, tokens, heads of q and k, heads of v (a multiple of H; default H), key width, value width. */
export interface DeltaDims {
  B: number;
  T: number;
  H: number;
  HV?: number;
  K: number;
  V: number;
}

/**
 * Flat row-major arrays: q, k [B,T,H,K]; v [B,T,HV,V]; beta [B,T,HV]; g [B,T,HV,K] or [B,T,HV] (told apart by length) or absent;
 * initialState [N,HV,K,V].
 */
export interface DeltaOracleInputs {
  q: ArrayLike<number>;
  k: ArrayLike<number>;
  v: ArrayLike<number>;
  beta: ArrayLike<number>;
  g?: ArrayLike<number>;
  initialState?: ArrayLike<number>;
}

/** Gradients on the outputs; an absent one is zero. dO [B,T,HV,V], dFinalState [N,HV,K,V]. */
export interface DeltaUpstream {
  dO?: ArrayLike<number>;
  dFinalState?: ArrayLike<number>;
}

/** o [B,T,HV,V], finalState [N,HV,K,V] and the gradient on every input, in that input's layout (dg empty without g). */
export interface DeltaOracleResult {
  o: Float64Array;
  finalState: Float64Array;
  dq: Float64Array;
  dk: Float64Array;
  dv: Float64Array;
  dbeta: Float64Array;
  dg: Float64Array;
  dInitialState: Float64Array;
}

/**
 * @param options scale: default K^-0.5; cuSeqlens: offsets of packed documents (needs B = 1), each run alone with its own state
 */
export function deltaOracle(
  inputs: DeltaOracleInputs,
  { B, T, H, HV = H, K, V }: DeltaDims,
  options: { scale?: number; cuSeqlens?: ArrayLike<number> } = {},
  upstream: DeltaUpstream = {},
): DeltaOracleResult {
  const scale = options.scale ?? K ** -0.5;
  const sequences = sequencesOf(B, T, options.cuSeqlens);
  const out: DeltaOracleResult = {
    o: new Float64Array(B * T * HV * V),
    finalState: new Float64Array(sequences.length * HV * K * V),
    dq: new Float64Array(B * T * H * K),
    dk: new Float64Array(B * T * H * K),
    dv: new Float64Array(B * T * HV * V),
    dbeta: new Float64Array(B * T * HV),
    dg: new Float64Array(inputs.g?.length ?? 0),
    dInitialState: new Float64Array(sequences.length * HV * K * V),
  };
  const gatesPerHead = out.dg.length / (B * T * HV); // 0, 1 or K
  sequences.forEach(([start, length], n) => {
    for (let head = 0; head < HV; head++) {
      const state = (n * HV + head) * K * V;
      runHead({ H, HV, K, V, scale, gatesPerHead, start, length, head, state }, inputs, upstream, out);
    }
  });
  return out;
}

interface Head {
  H: number;
  HV: number;
  K: number;
  V: number;
  scale: number;
  gatesPerHead: number;
  start: number;
  length: number;
  head: number;
  /** Where this head's state starts in initialState and finalState. */
  state: number;
}

function runHead(
  at: Head,
  inputs: DeltaOracleInputs,
  { dO, dFinalState }: DeltaUpstream,
  out: DeltaOracleResult,
): void {
  const { H, HV, K, V, scale, gatesPerHead, start, length } = at;
  const { q, k, v, beta, g, initialState } = inputs;
  const value = (t: number) => (start + t) * HV + at.head; // row of v, beta, o and g
  const key = (t: number) => ((start + t) * H + Math.floor((at.head * H) / HV)) * K;
  const gate = (t: number, i: number) => value(t) * gatesPerHead + (gatesPerHead === K ? i : 0);
  const decay = (t: number, i: number) => (g ? Math.exp(g[gate(t, i)]) : 1);
  const cells = (body: (i: number, j: number, c: number) => void) => {
    for (let i = 0; i < K; i++) for (let j = 0; j < V; j++) body(i, j, i * V + j);
  };

  // Forward. states[t] is the state before token t; decayed[t] is R_t; residuals[t] is v_t - R_t^T k_t.
  const states = [Float64Array.from({ length: K * V }, (_, c) => initialState?.[at.state + c] ?? 0)];
  const decayed: Float64Array[] = [];
  const residuals: Float64Array[] = [];
  for (let t = 0; t < length; t++) {
    const R = new Float64Array(K * V);
    const residual = Float64Array.from({ length: V }, (_, j) => v[value(t) * V + j]);
    cells((i, j, c) => {
      R[c] = decay(t, i) * states[t][c];
      residual[j] -= R[c] * k[key(t) + i];
    });
    const S = Float64Array.from(R);
    cells((i, j, c) => {
      S[c] += k[key(t) + i] * beta[value(t)] * residual[j];
      out.o[value(t) * V + j] += scale * q[key(t) + i] * S[c];
    });
    decayed.push(R);
    residuals.push(residual);
    states.push(S);
  }
  out.finalState.set(states[length], at.state);

  // Backward. D is the gradient on the state after token t.
  const D = Float64Array.from({ length: K * V }, (_, c) => dFinalState?.[at.state + c] ?? 0);
  for (let t = length - 1; t >= 0; t--) {
    const write = beta[value(t)];
    const u = new Float64Array(V); // D^T k
    cells((i, j, c) => {
      const d = dO?.[value(t) * V + j] ?? 0;
      D[c] += scale * q[key(t) + i] * d;
      out.dq[key(t) + i] += scale * states[t + 1][c] * d;
      u[j] += D[c] * k[key(t) + i];
    });
    for (let j = 0; j < V; j++) {
      out.dv[value(t) * V + j] = write * u[j];
      out.dbeta[value(t)] += u[j] * residuals[t][j];
    }
    cells((i, j, c) => {
      out.dk[key(t) + i] += write * (D[c] * residuals[t][j] - decayed[t][c] * u[j]);
      D[c] -= k[key(t) + i] * write * u[j];
      if (g) out.dg[gate(t, i)] += decayed[t][c] * D[c];
      D[c] *= decay(t, i);
    });
  }
  out.dInitialState.set(D, at.state);
}
