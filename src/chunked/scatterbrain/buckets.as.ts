/** The rotation hash: in float64 and in the order of hash.ts, so that both find the same bucket to the last bit. */

/** Bytes of scratch of scatterbrainBuckets. */
export function scatterbrainBucketsScratch(E: i32, rounds: i32, half: i32): usize {
  return <usize>(E + 1) * padded(rounds * half);
}

/** Bytes of a row of doubles, an even number of them. */
// @ts-ignore: decorator
@inline
function padded(width: i32): usize { return (<usize>(width + 1) & ~1) << 3; }

/** x [rows, E], rotations [E, rounds, half], out (int32) [rows, rounds]: argmax over [x R, -x R], the first of equals. */
export function scatterbrainBuckets(x: usize, rotations: usize, out: usize, rows: i32, E: i32, rounds: i32, half: i32, s: usize): void {
  const width = rounds * half, row = padded(width), R = s + row;
  memory.fill(s, 0, <usize>(E + 1) * row);
  for (let e: usize = 0; e < <usize>E; e++)
    for (let i: usize = 0; i < <usize>width; i++)
      store<f64>(R + e * row + (i << 3), <f64>load<f32>(rotations + ((e * <usize>width + i) << 2)));
  for (let r = 0; r < rows; r++, x += <usize>E << 2) {
    for (let i: usize = 0; i < row; i += 16) {
      let sum = f64x2.splat(0), at = R + i;
      for (let e = x, end = x + (<usize>E << 2); e < end; e += 4, at += row) sum = f64x2.add(sum, f64x2.mul(f64x2.splat(<f64>load<f32>(e)), v128.load(at)));
      v128.store(s + i, sum);
    }
    for (let round: usize = 0; round < <usize>rounds; round++, out += 4) store<i32>(out, largest(s + ((round * <usize>half) << 3), half));
  }
}

function largest(x: usize, n: i32): i32 {
  let place = 0, most = load<f64>(x);
  for (let i = 1; i < n; i++) if (load<f64>(x + (<usize>i << 3)) > most) {
    place = i;
    most = load<f64>(x + (<usize>i << 3));
  }
  for (let i = 0; i < n; i++) if (-load<f64>(x + (<usize>i << 3)) > most) {
    place = n + i;
    most = -load<f64>(x + (<usize>i << 3));
  }
  return place;
}
