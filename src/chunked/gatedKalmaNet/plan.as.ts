/** Sizes, tensors and scratch memory of a call, how a chunk is read, and the matrix from chunk to chunk. */
import { C, fetch, headDecays, PANEL, SQUARE, SQUARE_ROW, scaleRows, stateBytes } from '../wasm/lib/chunk.as';
import { madd } from '../wasm/lib/math.as';
import { panelUpdate, rowsTimesRows, storeTransposed } from '../wasm/lib/product.as';
import { packMatrix, packPanel, packRows, pad8 } from '../wasm/lib/rows.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** Sizes, tensors and scratch of a call. It lies at the start of the scratch memory. */
// @ts-ignore: decorator
@unmanaged
export class Plan {
  H: i32;
  D: i32;
  Dp: i32;
  /** 0: no solve, x = q. */
  iterations: i32;
  ridge: f32;
  // Tensors; see gatedKalmaNetFwd. g is 0 where the state does not decay.
  q: usize;
  k: usize;
  g: usize;
  alpha: usize;
  initial: usize;
  x: usize;
  norms: usize;
  starts: usize;
  /** The largest entry of the state, by which it is divided where it is made tridiagonal. 0: the state is 0, and nothing is turned. */
  peak: f32;
  /** [Dp, Dp] plain: the matrix while it is made tridiagonal. */
  work: usize;
  /** [Dp + 1, Dp] plain: row m holds the vector u of reflection I - u u^T that clears row m; row Dp is 0. */
  reflections: usize;
  // [Dp]: main diagonal; entries beside it, to the right of a row and to the left; two for the reduction.
  diagonal: usize;
  right: usize;
  left: usize;
  image: usize;
  change: usize;
  // Turned: columns of keys and of what is solved for; panels of keys, PANEL bytes for every 8 channels.
  keyColumns: usize;
  columns: usize;
  keyPanels: usize;
  // Four rows of the iteration: the present and the one before ([4, Dp + 8], 4 floats before and after each row), right sides [4, Dp].
  present: usize;
  before: usize;
  rightSides: usize;
  /** [4, 16]. */
  scores: usize;
  /** [16, 16]: what the scores of a step are multiplied by. */
  weights: usize;
  /** [16]: what the state's part of a step is multiplied by. */
  stateWeights: usize;
  /** [16]: norms of the matrices; their reciprocals, 1 where a matrix is 0; k^T H k for the state H. */
  norm: usize;
  inverse: usize;
  keyNorms: usize;
  // [16, 16]: decays of pairs and their transpose; products of keys, lower blocks.
  pairs: usize;
  gram: usize;
  /** 16 floats each: decay of a token, decay from the chunk's start, decay to its end. */
  head: usize;
  /** [Dp]. */
  chunkDecay: usize;
  // [16, Dp].
  kRows: usize;
  keyWrites: usize;
  xRows: usize;
  /** A panel of 48 rows. */
  panel: usize;
  /** What only one of the kernels needs. */
  rest: usize;
}

/** Bytes of a Plan, rounded up. */
// @ts-ignore: decorator
@inline
const PLAN_BYTES: usize = 256;

/** Bytes of a row of the iteration, with its margins. */
// @ts-ignore: decorator
@inline
export function wideRow(p: Plan): usize { return <usize>(p.Dp + 8) << 2; }

/** Where the scratch of a chunk ends. */
export function restAt(s: usize, Dp: i32): usize {
  const row = <usize>Dp << 2, rows = <usize>Dp << 6;
  return s + PLAN_BYTES + row * <usize>(2 * Dp + 7) + 6 * rows + 2 * (<usize>(Dp + 8) << 4) + (row << 2) + 4 * SQUARE + 256 + 512 + 3 * PANEL;
}

export function planOf(
  s: usize, q: usize, k: usize, g: usize, alpha: usize, initial: usize, x: usize, norms: usize, starts: usize,
  H: i32, D: i32, iterations: i32, ridge: f32,
): Plan {
  const p = changetype<Plan>(s), Dp = pad8(D), row = <usize>Dp << 2, rows = <usize>Dp << 6;
  p.H = H;
  p.D = D;
  p.Dp = Dp;
  p.iterations = iterations;
  p.ridge = ridge;
  p.q = q;
  p.k = k;
  p.g = g;
  p.alpha = alpha;
  p.initial = initial;
  p.x = x;
  p.norms = norms;
  p.starts = starts;
  p.work = s + PLAN_BYTES;
  p.reflections = p.work + row * <usize>Dp;
  p.diagonal = p.reflections + row * <usize>(Dp + 1);
  p.right = p.diagonal + row;
  p.left = p.right + row;
  p.image = p.left + row;
  p.change = p.image + row;
  p.keyColumns = p.change + row;
  p.columns = p.keyColumns + rows;
  p.keyPanels = p.columns + rows;
  p.present = p.keyPanels + rows + 16;
  p.before = p.present + (wideRow(p) << 2);
  p.rightSides = p.before + (wideRow(p) << 2) - 16;
  p.scores = p.rightSides + (row << 2);
  p.weights = p.scores + 256;
  p.pairs = p.weights + SQUARE;
  p.gram = p.pairs + 2 * SQUARE;
  p.head = p.gram + SQUARE;
  p.stateWeights = p.head + 256;
  p.norm = p.stateWeights + 64;
  p.inverse = p.norm + 64;
  p.keyNorms = p.inverse + 64;
  p.chunkDecay = p.keyNorms + 64;
  p.kRows = p.chunkDecay + row;
  p.keyWrites = p.kRows + rows;
  p.xRows = p.keyWrites + rows;
  p.panel = p.xRows + rows;
  p.rest = p.panel + 3 * PANEL;
  memory.fill(p.present - 16, 0, wideRow(p) << 3); // the margins stay 0
  if (!g) headDecays(0, 0, 0, Dp, p.head, p.pairs, p.chunkDecay); // no decay: the same for every chunk
  return p;
}

// Where a tensor holds token t of head h, and bytes from token to token.

// @ts-ignore: decorator
@inline
export function rowStride(p: Plan): usize { return <usize>(p.H * p.D) << 2; }
// @ts-ignore: decorator
@inline
export function rowAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * rowStride(p) + (<usize>(h * p.D) << 2); }
// @ts-ignore: decorator
@inline
export function headStride(p: Plan): usize { return <usize>p.H << 2; }
// @ts-ignore: decorator
@inline
export function headAt(p: Plan, x: usize, t: i32, h: i32): usize { return x + <usize>t * headStride(p) + (<usize>h << 2); }
/** Bytes of the matrices of all heads, dense. */
// @ts-ignore: decorator
@inline
export function denseStates(p: Plan): usize { return <usize>p.H * <usize>(p.D * p.D) << 2; }

/** Keys and decays of a chunk. */
export function readKeys(p: Plan, t: i32, n: i32, h: i32): void {
  fetch(rowAt(p, p.k, t, h), rowStride(p), n, p.D, p.panel);
  if (p.g) headDecays(headAt(p, p.g, t, h), headStride(p), n, p.Dp, p.head, p.pairs, p.chunkDecay);
  packRows(rowAt(p, p.k, t, h), rowStride(p), n, p.D, p.kRows, C, 1);
  scaleRows(p.kRows, p.head + 128, p.keyWrites, <usize>p.Dp << 2);
}

/** Products of keys, blocks on and below the diagonal. */
export function keyProducts(p: Plan): void {
  const row = <usize>p.Dp << 2;
  for (let a: usize = 0; a < 4; a++)
    rowsTimesRows(p.kRows + a * (row << 2), row, p.kRows, row, p.Dp, p.gram + a * (4 * SQUARE_ROW), SQUARE_ROW, <i32>(a + 1) << 2);
}

/** to = chunkDecay * from + keyWrites^T k, both symmetric, in panels; they may be the same. */
export function advance(p: Plan, from: usize, to: usize): void {
  const Dp = p.Dp, row = <usize>Dp << 2;
  for (let col = 0; col < Dp; col += 8) {
    packPanel(p.kRows, row, C, Dp, col, p.panel, C);
    symmetricUpdate(p, p.keyWrites, p.panel, C, col, from, to, p.chunkDecay);
  }
}

/**
 * 8 columns from `col` on, and the same rows, of to = decay * from + A^T B, where that is symmetric: A [k, Dp] plain, B the panel of these
 * columns. `decay`: 8 equal floats, or 0 for none. Below the diagonal it is computed, above it copied.
 */
export function symmetricUpdate(p: Plan, a: usize, b: usize, k: i32, col: i32, from: usize, to: usize, decay: usize): void {
  const panel = <usize>p.Dp << 5, below = p.Dp - col - 8, row = <usize>p.Dp << 2, at = <usize>(col >> 3) * panel + (<usize>col << 5);
  a += <usize>col << 2;
  panelUpdate(a, row, b, k, from + at, to + at, 8, 0, decay, 0, 0);
  if (below) panelUpdate(a + 32, row, b, k, from + at + 256, to + at + 256, below, 0, decay, to + at + panel, panel);
}

/** The matrix of head h at the start of a segment. */
export function startMatrix(p: Plan, segment: i32, h: usize, to: usize): void {
  const size = stateBytes(p.D, p.D);
  if (segment) memory.copy(to, p.starts + (<usize>(segment - 1) * <usize>p.H + h) * size, size);
  else packSymmetric(p.initial ? p.initial + h * (<usize>(p.D * p.D) << 2) : 0, p.D, to);
}

/** The symmetric part of a dense matrix [D, D] in panels; zeros for 0. */
export function packSymmetric(src: usize, D: i32, to: usize): void {
  const panel = <usize>pad8(D) << 5;
  packMatrix(src, D, D, to);
  if (!src) return;
  for (let i: usize = 1; i < <usize>D; i++)
    for (let j: usize = 0; j < i; j++) {
      const a = to + (j >> 3) * panel + (i << 5) + ((j & 7) << 2), b = to + (i >> 3) * panel + (j << 5) + ((i & 7) << 2);
      const mean = <f32>0.5 * (load<f32>(a) + load<f32>(b));
      store<f32>(a, mean);
      store<f32>(b, mean);
    }
}

/** queries = q + alpha (x - q) for n tokens; x, rows of scratch memory, is kept. */
export function mixRows(p: Plan, t: i32, n: i32, h: i32, x: usize, queries: usize): void {
  const D = p.D, stride = rowStride(p);
  let q = rowAt(p, p.q, t, h), kept = rowAt(p, p.x, t, h), alpha = headAt(p, p.alpha, t, h);
  for (let r = 0; r < n; r++, q += stride, kept += stride, queries += stride, alpha += headStride(p), x += <usize>p.Dp << 2) {
    const f = v128.load_splat<f32>(alpha);
    for (let i = 0; i < D; i += 4) {
      const at = <usize>i << 2, lanes = D - i, y = loadN(q + at, lanes), z = p.iterations ? v128.load(x + at) : y;
      storeN(kept + at, z, lanes);
      storeN(queries + at, madd(f, f32x4.sub(z, y), y), lanes);
    }
  }
}

/** Columns (a token to a column) to a token's rows: element (i, t) goes to to + t * pitch, `step` bytes on for every 8 of i. */
export function columnsToRows(p: Plan, columns: usize, to: usize, pitch: usize, step: usize): void {
  for (let half = 0; half < 4; half++, to += pitch << 2) {
    const from = columns + (<usize>(half >> 1) * <usize>p.Dp << 5) + (<usize>(half & 1) << 4);
    fourToRows(from, p.Dp, to, pitch, step);
  }
}

/** Four columns of a panel to rows, as in columnsToRows. */
export function fourToRows(from: usize, Dp: i32, to: usize, pitch: usize, step: usize): void {
  for (let i = 0; i < Dp; i += 8, from += 256, to += step) {
    transposeBlock(from, 32, to, pitch);
    transposeBlock(from + 128, 32, to + 16, pitch);
  }
}

/** The transpose of a block of 4 x 4. */
// @ts-ignore: decorator
@inline
export function transposeBlock(from: usize, pitch: usize, to: usize, toPitch: usize): void {
  const second = from + pitch, third = second + pitch;
  storeTransposed(to, toPitch, v128.load(from), v128.load(second), v128.load(third), v128.load(third + pitch));
}
