/** BitLinear in float64 on flat row-major arrays, with its straight-through gradients. Uses nothing of `src`. */

type Numbers = ArrayLike<number>;

/** Half to even. */
export function roundToEven(x: number): number {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

const clip = (x: number, low: number, high: number) => Math.min(high, Math.max(low, x));
/** How far x is from where rounding changes. */
const margin = (x: number) => Math.abs(x - Math.floor(x) - 0.5);

export interface BitLinearSizes {
  I: number;
  O: number;
  eps: number;
  /** Activations are rounded to 8 bits. */
  rounds: boolean;
}

/**
 * out = (round(y sa) . clip(round(W sw))^T) / (sa sw), y = x r n. Backward: dy = dOut . Wq, dW = dOut^T . yq, and the gradients of the norm.
 * `dxTerms` is the largest |r u|, u = dy n, which may cancel almost wholly: a rounding error of dx is relative to it.
 * `margin`: the smallest distance of a scaled activation or weight from a tie, below which float32 may round to the other side.
 */
export function bitLinearOracle(
  { x, weight, norm }: { x: Numbers; weight: Numbers; norm?: Numbers },
  { I, O, eps, rounds }: BitLinearSizes,
  dOut: Numbers,
) {
  const rows = x.length / I;
  const [integers, dx] = [new Float64Array(x.length), new Float64Array(x.length)];
  const [scales, out] = [new Float64Array(rows), new Float64Array(rows * O)];
  const [dWeight, dNorm] = [new Float64Array(O * I), new Float64Array(I)];
  const n = (i: number) => norm?.[i] ?? 1;
  const mean = Array.from(weight).reduce((sum, w) => sum + Math.abs(w), 0) / weight.length;
  const weightScale = 1 / Math.max(mean, 1e-5);
  const ternary = Float64Array.from(weight, (w) => clip(roundToEven(w * weightScale), -1, 1));
  let closest = Array.from(weight).reduce((least, w) => Math.min(least, margin(w * weightScale)), 1);
  let dxTerms = 0;
  for (let row = 0; row < rows; row++) {
    const at = row * I;
    let squares = 0;
    for (let i = 0; i < I; i++) squares += x[at + i] ** 2;
    const r = (squares / I + eps) ** -0.5;
    const y = Array.from({ length: I }, (_, i) => x[at + i] * r * n(i));
    const scale = rounds ? 127 / Math.max(...y.map(Math.abs), 1e-5) : 1;
    scales[row] = scale;
    for (let i = 0; i < I; i++) {
      integers[at + i] = rounds ? clip(roundToEven(y[i] * scale), -128, 127) : y[i];
      if (rounds) closest = Math.min(closest, margin(y[i] * scale));
    }
    const dy = new Float64Array(I);
    for (let o = 0; o < O; o++) {
      let sum = 0;
      const d = dOut[row * O + o];
      for (let i = 0; i < I; i++) {
        sum += integers[at + i] * ternary[o * I + i];
        dWeight[o * I + i] += (d * integers[at + i]) / scale;
        dy[i] += (d * ternary[o * I + i]) / weightScale;
      }
      out[row * O + o] = sum / (scale * weightScale);
    }
    let dot = 0;
    for (let i = 0; i < I; i++) dot += x[at + i] * dy[i] * n(i);
    for (let i = 0; i < I; i++) {
      dNorm[i] += dy[i] * x[at + i] * r;
      dxTerms = Math.max(dxTerms, Math.abs(r * dy[i] * n(i)));
      dx[at + i] = r * (dy[i] * n(i) - (x[at + i] * r * r * dot) / I);
    }
  }
  return { out, dx, dWeight, dNorm, integers, scales, ternary, weightScale, dxTerms, margin: closest };
}
