/** A sequence of one token, as in decoding: one pass over the state (README, section 9). */
import { channelDecays, headDecays, SQUARE_ROW } from '../wasm/lib/chunk.as';
import { hsum, madd } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';
import { gateAt, headAt, keyAt, PER_CHANNEL, Plan, solveAt, valueAt } from './plan.as';

/** Head by head, 8 columns of the state at a time: they are read twice, but from the nearest cache the second time. */
export function tokenFwd(p: Plan, t: i32, o: usize, final: usize): void {
  const K = p.K, V = p.V, dense = <usize>(K * V) << 2;
  for (let h = 0; h < p.HV; h++, final += dense) {
    const q = keyAt(p, p.q, t, h), k = keyAt(p, p.k, t, h), v = valueAt(p, p.v, t, h), out = valueAt(p, o, t, h);
    const residual = valueAt(p, p.residuals, t, h), beta = load<f32>(headAt(p, p.beta, t, h));
    const initial = p.initial ? p.initial + <usize>h * dense : 0;
    tokenDecays(p, t, h);
    const qk = dot(q, k, K);
    for (let col = 0; col < V; col += 8) {
      const at = <usize>col << 2, left = V - col, from = initial ? initial + at : 0;
      if (left >= 8) step(p, q, k, v + at, from, out + at, final + at, residual + at, beta, qk, 4, 4);
      else step(p, q, k, v + at, from, out + at, final + at, residual + at, beta, qk, min(4, left), left - 4);
    }
    if (p.solves) memory.fill(solveAt(p, t, h), 0, SQUARE_ROW);
  }
}

/** exp(g) of one token for every channel. */
function tokenDecays(p: Plan, t: i32, h: i32): void {
  if (!p.gates) return;
  const g = gateAt(p, p.g, t, h);
  if (p.gates == PER_CHANNEL) channelDecays(g, 0, 1, p.K, p.decays, p.chunkDecay);
  else headDecays(g, 0, 1, p.Kp, p.head, p.pairs, p.chunkDecay);
}

function dot(a: usize, b: usize, n: i32): f32 {
  let sum = f32x4.splat(0);
  for (let i = 0; i < n; i += 4, a += 16, b += 16) sum = madd(loadN(a, n - i), loadN(b, n - i), sum);
  return hsum(sum);
}

/**
 * Up to 8 columns of one token: residual = v - (exp(g) S)^T k, S = exp(g) S + k beta residual^T, o = scale * S^T q. `second` lanes of the
 * second four columns; none where it is below 1.
 */
// @ts-ignore: decorator
@inline
function step(
  p: Plan, q: usize, k: usize, v: usize, initial: usize, o: usize, final: usize, residual: usize, beta: f32, qk: f32, lanes: i32, second: i32,
): void {
  const row = <usize>p.V << 2, decays = p.chunkDecay, bytes = <usize>p.K << 2, zero = f32x4.splat(0);
  let u0 = zero, u1 = zero, w0 = zero, w1 = zero;
  if (initial)
    for (let i: usize = 0, s = initial; i < bytes; i += 4, s += row) {
      const d = load<f32>(decays + i), key = f32x4.splat(d * load<f32>(k + i)), query = f32x4.splat(d * load<f32>(q + i));
      const x0 = loadN(s, lanes);
      u0 = madd(key, x0, u0);
      w0 = madd(query, x0, w0);
      if (second < 1) continue;
      const x1 = loadN(s + 16, second);
      u1 = madd(key, x1, u1);
      w1 = madd(query, x1, w1);
    }
  const b = f32x4.splat(beta), scale = f32x4.splat(p.scale), qks = f32x4.splat(qk);
  const e0 = f32x4.sub(loadN(v, lanes), u0), delta0 = f32x4.mul(b, e0);
  if (p.residuals) storeN(residual, e0, lanes);
  storeN(o, f32x4.mul(scale, madd(qks, delta0, w0)), lanes);
  let delta1 = zero;
  if (second > 0) {
    const e1 = f32x4.sub(loadN(v + 16, second), u1);
    delta1 = f32x4.mul(b, e1);
    if (p.residuals) storeN(residual + 16, e1, second);
    storeN(o + 16, f32x4.mul(scale, madd(qks, delta1, w1)), second);
  }
  for (let i: usize = 0; i < bytes; i += 4, final += row) {
    const key = v128.load_splat<f32>(k + i), d = v128.load_splat<f32>(decays + i);
    let x = f32x4.mul(key, delta0), y = f32x4.mul(key, delta1);
    if (initial) {
      x = madd(d, loadN(initial, lanes), x);
      if (second > 0) y = madd(d, loadN(initial + 16, second), y);
      initial += row;
    }
    storeN(final, x, lanes);
    if (second > 0) storeN(final + 16, y, second);
  }
}
