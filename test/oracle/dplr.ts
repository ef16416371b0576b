/**
 * The generalised delta rule (diagonal plus low rank) in float64, straight from the recurrence (https://arxiv.org/abs/2510.26692,
 * sec. 6.2; here a reads and b writes):
 *
 *   S_t = diag(exp(g_t)) S_{t-1} + b_t z_t^T + k_t v_t^T      z_t = S_{t-1}^T a_t      o_t = scale * S_t^T q_t
 *
 * and its gradients by running the adjoint of the state D_t = dL/dS_t backwards:
 *
 *   D_t  = scale * q_t dO_t^T + diag(exp(g_{t+1})) D_{t+1} + a_{t+1} dz_{t+1}^T        D_T = scale * q_T dO_T^T + dFinalState
 *   dq_t = scale * S_t dO_t      dk_t = D_t v_t      dv_t = D_t^T k_t      db_t = D_t z_t      dz_t = D_t^T b_t
 *   da_t = S_{t-1} dz_t          dg_t = rowsum(diag(exp(g_t)) S_{t-1} * D_t)
 */
import type { GlaDims } from './gla.js';
import { sequencesOf } from './sequences.js';

/** Flat row-major arrays: q, k, a, b, g [B,T,H,K]; v [B,T,H,V]; initialState [N,H,K,V]. */
export interface DplrOracleInputs {
  q: ArrayLike<number>;
  k: ArrayLike<number>;
  v: ArrayLike<number>;
  a: ArrayLike<number>;
  b: ArrayLike<number>;
  g: ArrayLike<number>;
  initialState?: ArrayLike<number>;
}

/** Gradients on the outputs; an absent one is zero. dO [B,T,H,V], dFinalState [N,H,K,V]. */
export interface DplrUpstream {
  dO?: ArrayLike<number>;
  dFinalState?: ArrayLike<number>;
}

/** o [B,T,H,V], finalState [N,H,K,V] and the gradient on every input, in that input's layout. */
export interface DplrOracleResult {
  o: Float64Array;
  finalState: Float64Array;
  dq: Float64Array;
  dk: Float64Array;
  dv: Float64Array;
  da: Float64Array;
  db: Float64Array;
  dg: Float64Array;
  dInitialState: Float64Array;
}

/**
 * @param options scale: default K^-0.5; cuSeqlens: offsets of packed documents (needs B = 1), each run alone with its own state
 */
export function dplrOracle(
  inputs: DplrOracleInputs,
  dims: GlaDims,
  options: { scale?: number; cuSeqlens?: ArrayLike<number> } = {},
  upstream: DplrUpstream = {},
): DplrOracleResult {
  const { B, T, H, K, V } = dims;
  const scale = options.scale ?? K ** -0.5;
  const sequences = sequencesOf(B, T, options.cuSeqlens);
  const [keys, values, states] = [B * T * H * K, B * T * H * V, sequences.length * H * K * V];
  const out: DplrOracleResult = {
    o: new Float64Array(values),
    finalState: new Float64Array(states),
    dq: new Float64Array(keys),
    dk: new Float64Array(keys),
    dv: new Float64Array(values),
    da: new Float64Array(keys),
    db: new Float64Array(keys),
    dg: new Float64Array(keys),
    dInitialState: new Float64Array(states),
  };
  sequences.forEach(([start, length], n) => {
    for (let head = 0; head < H; head++)
      runHead({ H, K, V, scale, start, length, head, state: (n * H + head) * K * V }, inputs, upstream, out);
  });
  return out;
}

interface Head {
  H: number;
  K: number;
  V: number;
  scale: number;
  start: number;
  length: number;
  head: number;
  /** Where this head's state starts in initialState and finalState. */
  state: number;
}

function runHead(at: Head, inputs: DplrOracleInputs, { dO, dFinalState }: DplrUpstream, out: DplrOracleResult): void {
  const { H, K, V, scale, start, length } = at;
  const { q, k, v, a, b, g, initialState } = inputs;
  const key = (t: number) => ((start + t) * H + at.head) * K;
  const value = (t: number) => ((start + t) * H + at.head) * V;
  const cells = (body: (i: number, j: number, c: number) => void) => {
    for (let i = 0; i < K; i++) for (let j = 0; j < V; j++) body(i, j, i * V + j);
  };

  // Forward. states[t] is the state before token t; reads[t] is z_t.
  const states = [Float64Array.from({ length: K * V }, (_, c) => initialState?.[at.state + c] ?? 0)];
  const reads: Float64Array[] = [];
  for (let t = 0; t < length; t++) {
    const [S, z] = [new Float64Array(K * V), new Float64Array(V)];
    cells((i, j, c) => {
      z[j] += a[key(t) + i] * states[t][c];
    });
    cells((i, j, c) => {
      S[c] = Math.exp(g[key(t) + i]) * states[t][c] + b[key(t) + i] * z[j] + k[key(t) + i] * v[value(t) + j];
      out.o[value(t) + j] += scale * q[key(t) + i] * S[c];
    });
    reads.push(z);
    states.push(S);
  }
  out.finalState.set(states[length], at.state);

  // Backward. D is the gradient on the state after token t.
  const D = Float64Array.from({ length: K * V }, (_, c) => dFinalState?.[at.state + c] ?? 0);
  for (let t = length - 1; t >= 0; t--) {
    const dz = new Float64Array(V);
    cells((i, j, c) => {
      const d = dO?.[value(t) + j] ?? 0;
      D[c] += scale * q[key(t) + i] * d;
      out.dq[key(t) + i] += scale * states[t + 1][c] * d;
      out.dk[key(t) + i] += D[c] * v[value(t) + j];
      out.dv[value(t) + j] += D[c] * k[key(t) + i];
      out.db[key(t) + i] += D[c] * reads[t][j];
      dz[j] += D[c] * b[key(t) + i];
    });
    cells((i, j, c) => {
      const decay = Math.exp(g[key(t) + i]);
      out.da[key(t) + i] += states[t][c] * dz[j];
      out.dg[key(t) + i] += decay * states[t][c] * D[c];
      D[c] = decay * D[c] + a[key(t) + i] * dz[j];
    });
  }
  out.dInitialState.set(D, at.state);
}
