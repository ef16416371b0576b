import { madd, sigmoid4 } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** y = silu(gate) * up over n floats. */
export function swiGluFwd(gate: usize, up: usize, y: usize, n: i32): void {
  const end = gate + (<usize>(n & ~3) << 2);
  for (; gate < end; gate += 16, up += 16, y += 16) forward(gate, up, y, 4);
  if (n & 3) forward(gate, up, y, n & 3);
}

/** With s = sigmoid(gate): dgate = dy * up * s * (1 + gate * (1 - s)), dup = dy * gate * s. */
export function swiGluBwd(gate: usize, up: usize, dy: usize, dgate: usize, dup: usize, n: i32): void {
  const end = gate + (<usize>(n & ~3) << 2);
  for (; gate < end; gate += 16, up += 16, dy += 16, dgate += 16, dup += 16) backward(gate, up, dy, dgate, dup, 4);
  if (n & 3) backward(gate, up, dy, dgate, dup, n & 3);
}

// @ts-ignore: decorator
@inline
function forward(gate: usize, up: usize, y: usize, lanes: i32): void {
  const g = loadN(gate, lanes);
  storeN(y, f32x4.mul(f32x4.mul(g, sigmoid4(g)), loadN(up, lanes)), lanes);
}

// @ts-ignore: decorator
@inline
function backward(gate: usize, up: usize, dy: usize, dgate: usize, dup: usize, lanes: i32): void {
  const g = loadN(gate, lanes), s = sigmoid4(g), d = f32x4.mul(loadN(dy, lanes), s);
  const slope = madd(g, f32x4.sub(f32x4.splat(1.0), s), f32x4.splat(1.0));
  storeN(dgate, f32x4.mul(f32x4.mul(d, loadN(up, lanes)), slope), lanes);
  storeN(dup, f32x4.mul(d, g), lanes);
}
