import { madd, sigmoid4 } from '../wasm/lib/math.as';

/** y = silu(gate) * up over n floats. The tail of fewer than four goes through a scratch lane, so no byte past the end is touched. */
export function swiGluFwd(gate: usize, up: usize, y: usize, n: i32, lane: usize): void {
  const end = n & ~3;
  for (let i = 0; i < end; i += 4) {
    const p = <usize>i << 2;
    forward(gate + p, up + p, y + p);
  }
  if (end < n) {
    const p = <usize>end << 2, bytes = <usize>(n - end) << 2;
    memory.copy(lane, gate + p, bytes);
    memory.copy(lane + 16, up + p, bytes);
    forward(lane, lane + 16, lane + 32);
    memory.copy(y + p, lane + 32, bytes);
  }
}

/** With s = sigmoid(gate): dgate = dy * up * s * (1 + gate * (1 - s)), dup = dy * gate * s. */
export function swiGluBwd(gate: usize, up: usize, dy: usize, dgate: usize, dup: usize, n: i32, lane: usize): void {
  const end = n & ~3;
  for (let i = 0; i < end; i += 4) {
    const p = <usize>i << 2;
    backward(gate + p, up + p, dy + p, dgate + p, dup + p);
  }
  if (end < n) {
    const p = <usize>end << 2, bytes = <usize>(n - end) << 2;
    memory.copy(lane, gate + p, bytes);
    memory.copy(lane + 16, up + p, bytes);
    memory.copy(lane + 32, dy + p, bytes);
    backward(lane, lane + 16, lane + 32, lane + 48, lane + 64);
    memory.copy(dgate + p, lane + 48, bytes);
    memory.copy(dup + p, lane + 64, bytes);
  }
}

// @ts-ignore: decorator
@inline
function forward(gate: usize, up: usize, y: usize): void {
  const g = v128.load(gate);
  v128.store(y, f32x4.mul(f32x4.mul(g, sigmoid4(g)), v128.load(up)));
}

// @ts-ignore: decorator
@inline
function backward(gate: usize, up: usize, dy: usize, dgate: usize, dup: usize): void {
  const g = v128.load(gate), s = sigmoid4(g), d = f32x4.mul(v128.load(dy), s);
  const slope = madd(g, f32x4.sub(f32x4.splat(1.0), s), f32x4.splat(1.0));
  v128.store(dgate, f32x4.mul(f32x4.mul(d, v128.load(up)), slope));
  v128.store(dup, f32x4.mul(d, g));
}
