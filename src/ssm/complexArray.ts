/** Complex numbers in float64: two arrays of equal length, row by row where there are several axes. */
export interface ComplexArray {
  re: Float64Array;
  im: Float64Array;
}

/** Zeros. */
export const complexZeros = (size: number): ComplexArray => ({
  re: new Float64Array(size),
  im: new Float64Array(size),
});

/** Numbers from a function of their place. */
export function complexFrom(size: number, at: (i: number) => readonly [number, number]): ComplexArray {
  const out = complexZeros(size);
  for (let i = 0; i < size; i++) [out.re[i], out.im[i]] = at(i);
  return out;
}

/** Several arrays as one. */
export function complexConcat(parts: readonly ComplexArray[]): ComplexArray {
  const join = (part: 're' | 'im') => Float64Array.from(parts.flatMap((x) => [...x[part]]));
  return { re: join('re'), im: join('im') };
}

/** The layout of weights: float32 with a last axis [re, im]. */
export function interleaved({ re, im }: ComplexArray): Float32Array {
  const out = new Float32Array(2 * re.length);
  for (let i = 0; i < re.length; i++) {
    out[2 * i] = re[i];
    out[2 * i + 1] = im[i];
  }
  return out;
}
