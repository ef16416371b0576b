/** A sequence of one token, as in decoding: two passes over the state, which lies in a near cache at the second. */
import { exp1, madd } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';
import { keyAt, Plan, valueAt } from './plan.as';

/** A sequence of one token, head by head. */
export function tokenFwd(p: Plan, t: i32, o: usize, final: usize): void {
  const state = <usize>(p.K * p.V) << 2;
  for (let h = 0; h < p.H; h++) {
    const at = <usize>h * state, initial = p.initial ? p.initial + at : 0, z = p.z ? valueAt(p, p.z, t, h) : p.rest;
    memory.fill(z, 0, <usize>p.V << 2);
    if (initial) readState(initial, keyAt(p, p.a, t, h), z, p.K, p.V);
    step(p, t, h, initial, z, valueAt(p, o, t, h), final + at);
  }
}

/** z = z + S^T a. */
function readState(S: usize, a: usize, z: usize, K: i32, V: i32): void {
  const full = <usize>(V & ~3) << 2, tail = V & 3;
  for (let i = 0; i < K; i++, a += 4, S += <usize>V << 2) {
    const x = v128.load_splat<f32>(a);
    for (let at: usize = 0; at < full; at += 16) v128.store(z + at, madd(x, v128.load(S + at), v128.load(z + at)));
    if (tail) storeN(z + full, madd(x, loadN(S + full, tail), loadN(z + full, tail)), tail);
  }
}

/** One token: S = exp(g) S + b z^T + k v^T, o = scale * S^T q, row by row. */
function step(p: Plan, t: i32, h: i32, initial: usize, z: usize, o: usize, final: usize): void {
  const V = p.V, full = <usize>(V & ~3) << 2, tail = V & 3, v = valueAt(p, p.v, t, h);
  let at = keyAt(p, 0, t, h);
  memory.fill(o, 0, <usize>V << 2);
  for (let i = 0; i < p.K; i++, at += 4, final += <usize>V << 2) {
    const decay = initial ? f32x4.splat(exp1(load<f32>(p.g + at))) : f32x4.splat(0);
    const k = v128.load_splat<f32>(p.k + at), b = v128.load_splat<f32>(p.b + at), q = f32x4.splat(p.scale * load<f32>(p.q + at));
    for (let c: usize = 0; c < full; c += 16) stepCell(initial, v, z, o, final, decay, k, b, q, c, 4);
    if (tail) stepCell(initial, v, z, o, final, decay, k, b, q, full, tail);
    if (initial) initial += <usize>V << 2;
  }
}

// @ts-ignore: decorator
@inline
function stepCell(
  initial: usize, v: usize, z: usize, o: usize, final: usize, decay: v128, k: v128, b: v128, q: v128, c: usize, lanes: i32,
): void {
  let x = f32x4.mul(k, loadN(v + c, lanes));
  if (initial) x = madd(decay, loadN(initial + c, lanes), madd(b, loadN(z + c, lanes), x));
  storeN(final + c, x, lanes);
  storeN(o + c, madd(q, x, loadN(o + c, lanes)), lanes);
}
