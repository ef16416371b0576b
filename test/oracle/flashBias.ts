/**
 * Attention with a bias of factors and a band in float64: the dense bias b_ij = phiQ_i . phiK_j + band from its definition, attention with it, and
 * the chain rule from db; nothing of `src` is used.
 *
 *   dphiQ_i = sum_j db_ij phiK_j     dphiK_j = sum_i db_ij phiQ_i     dband_id = db_ij, j = S - T + i + d - (w - 1)
 *
 * each summed over the sequences and heads that share it.
 */
import {
  type AttentionDims,
  type AttentionOracleInputs,
  type AttentionOracleOptions,
  type AttentionOracleResult,
  attentionOracle,
} from './flashAttention.js';

/** Flat row-major: phiQ [b, T, h, R], phiK [b, S, h, R], band [b, T or 1, h, D]. */
export interface FlashBiasOracleInputs extends Omit<AttentionOracleInputs, 'bias'> {
  phiQ?: ArrayLike<number>;
  phiK?: ArrayLike<number>;
  band?: ArrayLike<number>;
}

export type Shape4 = readonly [number, number, number, number];
export interface BiasShapes {
  phiQ?: Shape4;
  phiK?: Shape4;
  band?: Shape4;
}

export interface FlashBiasOracleResult extends Omit<AttentionOracleResult, 'dBias'> {
  dPhiQ: Float64Array;
  dPhiK: Float64Array;
  dBand: Float64Array;
  /** [B, H, T, S] */
  bias: Float64Array;
}

export function flashBiasOracle(
  { phiQ = [], phiK = [], band = [], ...inputs }: FlashBiasOracleInputs,
  dims: AttentionDims,
  shapes: BiasShapes,
  options: AttentionOracleOptions = {},
  upstream: { dO?: ArrayLike<number>; dLse?: ArrayLike<number> } = {},
): FlashBiasOracleResult {
  const { B, T, S, H } = dims;
  const R = shapes.phiQ?.[3] ?? 0;
  const bias = new Float64Array(B * H * T * S);
  /** Visits every pair, with the entries its bias is made from: of both factors, and of the band (-1: outside). */
  const each = (visit: (at: number, ofQuery: number, ofKey: number, ofBand: number) => void) => {
    for (let at = 0; at < bias.length; at++) {
      const [j, i, h, b] = [at % S, Math.floor(at / S) % T, Math.floor(at / (S * T)) % H, Math.floor(at / (S * T * H))];
      visit(
        at,
        entry(shapes.phiQ, b, i, h),
        entry(shapes.phiK, b, j, h),
        bandEntry(shapes.band, b, i, h, j - (S - T + i)),
      );
    }
  };
  each((at, p, q, e) => {
    for (let r = 0; r < R; r++) bias[at] += phiQ[p + r] * phiK[q + r];
    if (e >= 0) bias[at] += band[e];
  });
  const { dBias, ...rest } = attentionOracle({ ...inputs, bias }, dims, options, upstream);
  const [dPhiQ, dPhiK, dBand] = [phiQ, phiK, band].map((x) => new Float64Array(x.length));
  each((at, p, q, e) => {
    for (let r = 0; r < R; r++) {
      dPhiQ[p + r] += dBias[at] * phiK[q + r];
      dPhiK[q + r] += dBias[at] * phiQ[p + r];
    }
    if (e >= 0) dBand[e] += dBias[at];
  });
  return { ...rest, dPhiQ, dPhiK, dBand, bias };
}

/** Where the numbers of sequence b, token t and head h begin; those of an axis of length 1 serve all. */
function entry(shape: Shape4 | undefined, b: number, t: number, h: number): number {
  if (!shape) return 0;
  const [B, T, H, n] = shape;
  return (((B === 1 ? 0 : b) * T + (T === 1 ? 0 : t)) * H + (H === 1 ? 0 : h)) * n;
}

function bandEntry(shape: Shape4 | undefined, b: number, i: number, h: number, relative: number): number {
  if (!shape) return -1;
  const d = relative + (shape[3] - 1) / 2;
  return d >= 0 && d < shape[3] ? entry(shape, b, i, h) + d : -1;
}
