import { sigmoid4 } from '../wasm/lib/math.as';
import { sigmoidSlope4 } from '../wasm/lib/softplus.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** y = value * sigmoid(gate): `rows` rows of n floats, `stride` bytes apart in value and gate, dense in y. */
export function gluFwd(value: usize, gate: usize, y: usize, rows: i32, n: i32, stride: usize): void {
  const width = <usize>n << 2, full = width & ~15;
  for (let row = 0; row < rows; row++, value += stride, gate += stride, y += width) {
    for (let p: usize = 0; p < full; p += 16) forward(value + p, gate + p, y + p, 4);
    if (n & 3) forward(value + full, gate + full, y + full, n & 3);
  }
}

/** dvalue = dy * sigmoid(gate), dgate = dy * value * sigmoid'(gate); the gradients lie as value and gate do. */
export function gluBwd(
  value: usize, gate: usize, dy: usize, dvalue: usize, dgate: usize, rows: i32, n: i32, stride: usize,
): void {
  const width = <usize>n << 2, full = width & ~15;
  for (let row = 0; row < rows; row++) {
    for (let p: usize = 0; p < full; p += 16) backward(value + p, gate + p, dy + p, dvalue + p, dgate + p, 4);
    if (n & 3) backward(value + full, gate + full, dy + full, dvalue + full, dgate + full, n & 3);
    value += stride;
    gate += stride;
    dvalue += stride;
    dgate += stride;
    dy += width;
  }
}

// @ts-ignore: decorator
@inline
function forward(value: usize, gate: usize, y: usize, lanes: i32): void {
  storeN(y, f32x4.mul(loadN(value, lanes), sigmoid4(loadN(gate, lanes))), lanes);
}

// @ts-ignore: decorator
@inline
function backward(value: usize, gate: usize, dy: usize, dvalue: usize, dgate: usize, lanes: i32): void {
  const g = loadN(gate, lanes), d = loadN(dy, lanes);
  storeN(dvalue, f32x4.mul(d, sigmoid4(g)), lanes);
  storeN(dgate, f32x4.mul(f32x4.mul(d, loadN(value, lanes)), sigmoidSlope4(g)), lanes);
}
