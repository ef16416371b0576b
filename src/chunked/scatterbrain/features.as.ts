/** Positive random features of rows, and the gradient back to the rows. */
import { exp4, hsum, madd } from '../wasm/lib/math.as';
import { tileProduct } from '../wasm/lib/product.as';
import { packRows } from '../wasm/lib/rows.as';
import { storeN } from '../wasm/lib/tail.as';
import { Plan } from './plan.as';

/**
 * Features of n rows of x: f[i] = exp(log phi(x_i) - a[i]), whose largest is 1, and a[i]. Rows whose `used` (4 ints a strip) are all 0 are left
 * as they are; 0: all are made. f has room for a multiple of 4 rows.
 */
export function features(p: Plan, x: usize, n: i32, f: usize, a: usize, used: usize): void {
  const row = <usize>p.Ep << 2, fRow = <usize>p.mp << 2, shift = p.shift;
  for (let i = 0; i < n; i += 4, f += fRow << 2, a += 16, x += p.keyRow << 2) {
    if (used && !v128.any_true(v128.load(used + (<usize>i << 2)))) continue;
    packRows(x, p.keyRow, min(4, n - i), p.E, p.strip, 4, p.root);
    for (let c: usize = 0; c < <usize>p.rp; c += 8)
      tileProduct(p.strip, row, p.projection + c * row, p.Ep, 0, 0, 0, 0, f + (c << 2), fRow, false);
    for (let r: usize = 0; r < 4; r++) store<f32>(a + (r << 2), featureRow(p, p.strip + r * row, f + r * fRow) + shift);
  }
}

/** Turns projections y [rp] at f into exp(y - top), exp(-y - top), top = max |y|; returns top - |x|^2 / 2. */
function featureRow(p: Plan, x: usize, f: usize): f32 {
  const half = <usize>p.rp << 2, Ep = <usize>p.Ep << 2, real = <usize>p.r << 2;
  let square = f32x4.splat(0), most = f32x4.splat(0);
  for (let e: usize = 0; e < Ep; e += 16) {
    const y = v128.load(x + e);
    square = madd(y, y, square);
  }
  for (let c: usize = 0; c < half; c += 16) most = f32x4.max(most, f32x4.abs(v128.load(f + c)));
  const top = max(
    max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)), max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)),
  );
  const shift = f32x4.splat(top);
  for (let c: usize = 0; c < half; c += 16) {
    const y = v128.load(f + c);
    v128.store(f + half + c, exp4(f32x4.sub(f32x4.neg(y), shift)));
    v128.store(f + c, exp4(f32x4.sub(y, shift)));
  }
  memory.fill(f + real, 0, half - real); // padding of the projection is no feature
  memory.fill(f + half + real, 0, half - real);
  return top - 0.5 * hsum(square);
}

/**
 * out[i] = temp g[i] + root W^T (l+ - l-) - temp x_i sum(l) for n rows, l = f * gf: what comes through scores (g, without the factor temp where
 * `scores`) and through features. Rows of out are p.keyRow bytes apart.
 */
export function featuresBwd(p: Plan, x: usize, n: i32, f: usize, g: usize, gf: usize, factor: f32, out: usize): void {
  const row = <usize>p.Ep << 2, fRow = <usize>p.mp << 2, half = <usize>p.rp << 2;
  for (let i = 0; i < n; i += 4) {
    const left = min(4, n - i);
    const rows = p.tk, u = p.strip, through = p.tq; // of the tile, which is done
    packRows(x, p.keyRow, left, p.E, rows, 4, p.temp);
    memory.fill(u, 0, fRow << 2);
    for (let r: usize = 0; r < <usize>left; r++) {
      let sum = f32x4.splat(0);
      for (let c: usize = 0; c < half; c += 16) {
        const at = r * fRow + c;
        const plus = f32x4.mul(v128.load(f + at), v128.load(gf + at)), minus = f32x4.mul(v128.load(f + at + half), v128.load(gf + at + half));
        v128.store(u + r * half + c, f32x4.sub(plus, minus));
        sum = f32x4.add(sum, f32x4.add(plus, minus));
      }
      store<f32>(p.decay + (r << 2), hsum(sum));
    }
    if (half)
      for (let c: usize = 0; c < <usize>p.Ep; c += 8)
        tileProduct(u, half, p.projectionPanels + c * half, p.rp, 0, 0, 0, 0, through + (c << 2), row, false);
    const direct = f32x4.splat(factor), root = f32x4.splat(p.root);
    for (let r: usize = 0; r < <usize>left; r++) {
      const total = f32x4.splat(load<f32>(p.decay + (r << 2)));
      for (let e = 0; e < p.E; e += 4) {
        const at = r * row + (<usize>e << 2);
        let y = f32x4.mul(direct, v128.load(g + at));
        if (half) {
          y = madd(root, v128.load(through + at), y);
          y = f32x4.sub(y, f32x4.mul(total, v128.load(rows + at)));
        }
        storeN(out + r * p.keyRow + (<usize>e << 2), y, min(4, p.E - e));
      }
    }
    x += p.keyRow << 2;
    out += p.keyRow << 2;
    f += fRow << 2;
    gf += fRow << 2;
    g += row << 2;
  }
}
