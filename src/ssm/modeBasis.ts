/** The modes of a HiPPO-LegS state space in blocks, and the maps between state and modes. */
import type { Matrix } from 'ml-matrix';
import { type ComplexArray, complexConcat, complexZeros } from './complexArray.js';
import { type Eigen, eigen, intoModes, outOfModes } from './eigen.js';
import { legsNormalPart } from './hippo.js';
import { type PtdOptions, perturbThenDiagonalise } from './ptd/index.js';

/** What to diagonalise. */
export interface ModeBasisOptions {
  /** N, states in all. */
  stateSize: number;
  /** J, equal blocks on the diagonal; default 1. */
  blocks?: number;
  /** Absent, or method `none`: the normal part of each block (S4D-LegS, S5). */
  ptd?: PtdOptions;
  /** true (default): one mode of each conjugate pair, y = 2 Re(C x). false: all N modes, y = Re(C x). */
  conjugate?: boolean;
}

/** V block by block. M is N / 2 (conjugate) plus half the number of real eigenvalues, or N. */
export class ModeBasis {
  readonly stateSize: number;
  readonly conjugate: boolean;
  /** [M] */
  readonly lambda: ComplexArray;
  /** The largest condition number of a block's eigenvectors. */
  readonly kappa: number;
  readonly blocks: readonly Eigen[];

  /** @throws RangeError unless `stateSize` is an even multiple of `blocks`, and as `perturbThenDiagonalise` */
  constructor({ stateSize, blocks = 1, ptd, conjugate = true }: ModeBasisOptions) {
    const size = stateSize / blocks;
    if (!(Number.isInteger(blocks) && blocks > 0 && Number.isInteger(size) && size > 0 && size % 2 === 0))
      throw new RangeError(
        `ModeBasis: stateSize must be an even multiple of blocks, got stateSize ${stateSize} and blocks ${blocks}`,
      );
    this.stateSize = stateSize;
    this.conjugate = conjugate;
    this.blocks = diagonalised(size, blocks, ptd);
    this.kappa = Math.max(...this.blocks.map(({ kappa }) => kappa));
    this.lambda = complexConcat(this.blocks.map((block) => this.#whole(block, block.lambda, 1)));
  }

  /** M. */
  get modes(): number {
    return this.lambda.re.length;
  }

  /** V^{-1} b. @param b [N, I] @returns [M, I] */
  input(b: Matrix): ComplexArray {
    return complexConcat(
      this.#parts((block, from, to) =>
        this.#whole(block, intoModes(block, b.subMatrix(from, to, 0, b.columns - 1)), b.columns),
      ),
    );
  }

  /** c V, real modes halved where conjugates are left out. @param c [O, N] @returns [O, M] */
  output(c: Matrix): ComplexArray {
    const parts = this.#parts((block, from, to) => this.#columns(block, c.subMatrix(0, c.rows - 1, from, to)));
    const out = complexZeros(c.rows * this.modes);
    let column = 0;
    for (const { values, width } of parts) {
      for (let o = 0; o < c.rows; o++)
        for (let m = 0; m < width; m++) {
          const at = o * this.modes + column + m;
          out.re[at] = values.re[o * width + m];
          out.im[at] = values.im[o * width + m];
        }
      column += width;
    }
    return out;
  }

  #parts<T>(map: (block: Eigen, from: number, to: number) => T): T[] {
    const size = this.stateSize / this.blocks.length;
    return this.blocks.map((block, j) => map(block, j * size, (j + 1) * size - 1));
  }

  /** c V of one block, [O, width]. */
  #columns(block: Eigen, c: Matrix): { values: ComplexArray; width: number } {
    const half = outOfModes(block, c);
    const kept = block.pairs + block.reals;
    const width = this.conjugate ? kept : 2 * block.pairs + block.reals;
    const values = complexZeros(c.rows * width);
    for (let o = 0; o < c.rows; o++)
      for (let m = 0; m < width; m++) {
        const isConjugate = m >= kept;
        const from = o * kept + (isConjugate ? m - kept : m);
        const scale = this.conjugate && m >= block.pairs ? 0.5 : 1;
        values.re[o * width + m] = scale * half.re[from];
        values.im[o * width + m] = scale * (isConjugate ? -half.im[from] : half.im[from]);
      }
    return { values, width };
  }

  /** Rows of a block with those of the conjugates after them, where all modes are kept. */
  #whole({ pairs }: Eigen, rows: ComplexArray, width: number): ComplexArray {
    if (this.conjugate) return rows;
    const end = pairs * width;
    const mirrored = { re: rows.re.slice(0, end), im: rows.im.slice(0, end).map((x) => -x) };
    return complexConcat([rows, mirrored]);
  }
}

function diagonalised(size: number, blocks: number, ptd: PtdOptions | undefined): Eigen[] {
  const equal = !ptd || ptd.method === 'none' || ptd.blocks === 'same' || ptd.method === 'given';
  const one = (j: number) =>
    !ptd || ptd.method === 'none' ? eigen(legsNormalPart(size)) : perturbThenDiagonalise(size, ptd, `block${j}`);
  if (!equal) return Array.from({ length: blocks }, (_, j) => one(j));
  return Array<Eigen>(blocks).fill(one(0));
}
