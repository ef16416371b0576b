/** bfloat16 and IEEE half precision to and from float32, rounded to nearest with ties to even. Stored as their 16 bits. */

const floatCell = new Float32Array(1);
const bitsCell = new Uint32Array(floatCell.buffer);

/** float32 numbers to the bits of bfloat16. NaN stays NaN; beyond the largest bfloat16 it is infinity. */
export function float32ToBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i];
    const nan = (x & 0x7fffffff) > 0x7f800000;
    // adding just under half a unit, and one more when the kept part is odd, carries exactly where rounding goes up
    out[i] = nan ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return out;
}

/** The bits of bfloat16 to float32, exactly. */
export function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const out = new Float32Array(bits.length);
  const outBits = new Uint32Array(out.buffer);
  for (let i = 0; i < bits.length; i++) outBits[i] = bits[i] << 16;
  return out;
}

/** float32 numbers to the bits of float16. NaN stays NaN; from 65520 on it is infinity. */
export function float32ToFloat16(values: Float32Array): Uint16Array {
  return Uint16Array.from(values, halfBits);
}

/** The bits of float16 to float32, exactly. */
export function float16ToFloat32(bits: Uint16Array): Float32Array {
  return Float32Array.from(bits, (h) => {
    const sign = h & 0x8000 ? -1 : 1;
    const exponent = (h >>> 10) & 31;
    const fraction = h & 1023;
    if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
  });
}

function halfBits(value: number): number {
  floatCell[0] = value;
  const bits = bitsCell[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return sign | 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00; // half way from the largest float16 to 2^16
  if (magnitude < 2 ** -14) return sign | roundEven(magnitude * 2 ** 24); // subnormal: in units of 2^-24; 1024 is the first normal
  const exponent = (bits >>> 23) & 255;
  const kept = ((exponent - 112) << 10) | ((bits >>> 13) & 1023);
  const rest = bits & 0x1fff;
  return sign | (kept + (rest > 0x1000 || (rest === 0x1000 && kept & 1) ? 1 : 0)); // a carry runs into the exponent, as it should
}

function roundEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}
