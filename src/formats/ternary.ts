/**
 * Matrices of -1, 0 and 1 as bytes, with u = value + 1. `2bit`: four to a byte, u0 | u1 << 2 | u2 << 4 | u3 << 6; `base3`: five to a byte,
 * u0 + 3 u1 + 9 u2 + 27 u3 + 81 u4 (1.6 bits each). Rows begin at whole bytes and are filled up with zeros (u = 1).
 */

export type TernaryEncoding = '2bit' | 'base3';

export interface TernaryPacking {
  /** Default `2bit`. */
  encoding?: TernaryEncoding;
  /** Rows are filled up to a multiple of so many bytes; default 1. */
  align?: number;
}

/** A ternary matrix as bytes, outside of TensorFlow.js. */
export interface PackedMatrix {
  /** [rows, columns] */
  shape: [number, number];
  /** As `packTernary` gives them. */
  bytes: Uint8Array;
  packing: TernaryPacking;
  /** What the matrix was multiplied by before it was rounded. */
  scale: number;
}

const PER_BYTE = { '2bit': 4, base3: 5 } as const;
/** A byte of zeros only. */
const ZEROS = { '2bit': 0b01_01_01_01, base3: 121 } as const; // 1 + 3 + 9 + 27 + 81

/** Bytes of one row of `columns` values. */
export function packedRowBytes(columns: number, { encoding = '2bit', align = 1 }: TernaryPacking = {}): number {
  if (!Number.isInteger(align) || align < 1)
    throw new RangeError(`packTernary: align must be a positive integer, got ${align}`);
  const perByte = PER_BYTE[encoding];
  if (!perByte) throw new RangeError(`packTernary: encoding must be one of '2bit', 'base3', got '${encoding}'`);
  return align * Math.ceil(columns / perByte / align);
}

/**
 * @param values row by row, each -1, 0 or 1
 * @param shape [rows, columns]
 * @throws RangeError for another value or number of values, or an unknown option
 */
export function packTernary(
  values: ArrayLike<number>,
  shape: readonly [number, number],
  packing: TernaryPacking = {},
): Uint8Array {
  const [rows, columns] = shape;
  const stride = packedRowBytes(columns, packing);
  if (values.length !== rows * columns)
    throw new RangeError(`packTernary: a matrix [${shape}] holds ${rows * columns} values, got ${values.length}`);
  const [perByte, base] = radix(packing);
  const bytes = new Uint8Array(rows * stride);
  for (let at = 0; at < bytes.length; at++) {
    const [row, first] = [Math.floor(at / stride), (at % stride) * perByte];
    for (let j = perByte - 1; j >= 0; j--) {
      const column = first + j;
      const value = column < columns ? values[row * columns + column] : 0;
      if (value !== -1 && value !== 0 && value !== 1)
        throw new RangeError(
          `packTernary: every value must be -1, 0 or 1, got ${value} in row ${row}, column ${column}`,
        );
      bytes[at] = bytes[at] * base + value + 1;
    }
  }
  return bytes;
}

/**
 * The inverse of `packTernary`.
 * @returns values row by row, each -1, 0 or 1
 * @throws RangeError for another number of bytes, or a byte that no values give
 */
export function unpackTernary(
  bytes: Uint8Array,
  shape: readonly [number, number],
  packing: TernaryPacking = {},
): Int8Array {
  const [rows, columns] = shape;
  const stride = packedRowBytes(columns, packing);
  if (bytes.length !== rows * stride)
    throw new RangeError(`unpackTernary: a matrix [${shape}] takes ${rows * stride} bytes, got ${bytes.length}`);
  const [perByte, base] = radix(packing);
  const values = new Int8Array(rows * columns);
  for (let at = 0; at < bytes.length; at++) {
    const [row, first] = [Math.floor(at / stride), (at % stride) * perByte];
    let rest = bytes[at];
    for (let j = 0; j < perByte; j++) {
      const u = rest % base;
      rest = (rest - u) / base;
      if (u === 3) throw corrupt(bytes[at], at);
      if (first + j < columns) values[row * columns + first + j] = u - 1;
    }
    if (rest > 0) throw corrupt(bytes[at], at);
  }
  return values;
}

/**
 * The same matrix in another packing, row by row: at no time is more than a row unpacked. Where the bytes stay as they are, they are shared.
 * @throws RangeError for another number of bytes, or a byte that no values give
 */
export function repackTernary({ shape, bytes, packing, scale }: PackedMatrix, into: TernaryPacking): PackedMatrix {
  const [rows, columns] = shape;
  const [from, to] = [packedRowBytes(columns, packing), packedRowBytes(columns, into)];
  if (bytes.length !== rows * from)
    throw new RangeError(`repackTernary: a matrix [${shape}] takes ${rows * from} bytes, got ${bytes.length}`);
  const [{ encoding = '2bit' }, { encoding: other = '2bit' }] = [packing, into];
  if (encoding === other) return { shape, bytes: realigned(bytes, { rows, from, to, encoding }), packing: into, scale };
  const out = new Uint8Array(rows * to);
  for (let row = 0; row < rows; row++) {
    const values = unpackTernary(bytes.subarray(row * from, (row + 1) * from), [1, columns], packing);
    out.set(packTernary(values, [1, columns], into), row * to);
  }
  return { shape, bytes: out, packing: into, scale };
}

/** Rows of `from` bytes cut or filled up to `to` bytes. */
function realigned(
  bytes: Uint8Array,
  { rows, from, to, encoding }: { rows: number; from: number; to: number; encoding: TernaryEncoding },
): Uint8Array {
  const isBad = (byte: number) => (encoding === '2bit' ? (byte & (byte >> 1) & 0b01_01_01_01) !== 0 : byte > 242);
  for (let at = 0; at < bytes.length; at++) if (isBad(bytes[at])) throw corrupt(bytes[at], at);
  if (from === to) return bytes;
  const out = new Uint8Array(rows * to).fill(ZEROS[encoding]);
  for (let row = 0; row < rows; row++) out.set(bytes.subarray(row * from, row * from + Math.min(from, to)), row * to);
  return out;
}

/** Values in a byte, and what one place is worth over the one before. */
function radix({ encoding = '2bit' }: TernaryPacking): [perByte: number, base: number] {
  return [PER_BYTE[encoding], encoding === '2bit' ? 4 : 3];
}

const corrupt = (byte: number, at: number) =>
  new RangeError(
    `unpackTernary: byte ${at} is ${byte}, which no values give; the data are damaged or of another encoding`,
  );
