/** Gated KalmaNet as the properties take it. */
import { type GatedKalmaNetInputs, type GatedKalmaNetOptions, gatedKalmaNet } from '../../src/chunked/index.js';
import { type GatedKalmaNetOracleInputs, gatedKalmaNetOracle } from '../oracle/gatedKalmaNet.js';
import {
  type Draw,
  drawGate,
  drawSameRows,
  drawUniform,
  drawUnitRows,
  type GateStrength,
  type MixingOp,
} from './opProperties.js';
import { normal } from './tensors.js';

export const drawKeys = { unit: drawUnitRows, same: drawSameRows, alike: drawAlikeRows } satisfies Record<string, Draw>;

export interface KalmaNetKind
  extends Pick<
    GatedKalmaNetOptions,
    'numIterations' | 'ridgeRatio' | 'solver' | 'lambdaGradient' | 'decayKk' | 'scale'
  > {
  gate?: GateStrength;
  keys?: keyof typeof drawKeys;
}

/** Gated KalmaNet of this kind. The states are the inputs `kk` and `kv`, and the outputs `finalKk` and `finalKv`. */
export function kalmaNetOp({ gate = 'mixed', keys = 'unit', ...solver }: KalmaNetKind = {}): MixingOp {
  return {
    tokens: ({ B, T, H, K, V }) => ({
      ...{ q: [B, T, H, K], k: [B, T, H, K], v: [B, T, H, V], g: [B, T, H], alpha: [B, T, H] },
    }),
    states: ({ H, K, V }, N) => ({
      kk: { shape: [N, H, K, K], final: 'finalKk' },
      kv: { shape: [N, H, K, V], final: 'finalKv' },
    }),
    outputs: ({ B, T, H, V }) => ({ o: [B, T, H, V] }),
    draw: { q: drawUnitRows, k: drawKeys[keys], g: drawGate(gate), alpha: drawUniform(0, 1), kk: drawCovariance },
    run: ({ kk, kv, ...tokens }, options) => {
      const inputs = { ...tokens, ...(kk && { initialState: { kk, kv } }) } as unknown as GatedKalmaNetInputs;
      const { o, finalState } = gatedKalmaNet(inputs, { ...(options as GatedKalmaNetOptions), ...solver });
      return { o, finalKk: finalState.kk, finalKv: finalState.kv };
    },
    oracle: (inputs, sizes, { cuSeqlens }, { o, finalKk, finalKv }) => {
      const upstream = { dO: o, dKk: finalKk, dKv: finalKv };
      const given = inputs as unknown as GatedKalmaNetOracleInputs;
      const want = gatedKalmaNetOracle(given, sizes, { ...solver, cuSeqlens }, upstream);
      return { ...want, dAlpha: want.dalpha, dKk: want.dInitialKk, dKv: want.dInitialKv };
    },
  };
}

/** Rows of length 1 around one direction. */
function drawAlikeRows(seed: number, length: number, shape: number[]): Float32Array {
  const [common, own] = [drawSameRows(seed, length, shape), drawUnitRows(seed + 1, length, shape)];
  const sum = common.map((x, i) => x + 0.05 * own[i]);
  const width = shape[shape.length - 1];
  return sum.map((x, i) => x / Math.hypot(...sum.slice(i - (i % width), i - (i % width) + width)));
}

/** Matrices A A^T / D with standard normal A. */
function drawCovariance(seed: number, length: number, shape: number[]): Float32Array {
  const [a, D] = [normal(seed, length), shape[shape.length - 1]];
  const rowOf = (i: number) => a.subarray(i * D, (i + 1) * D);
  return Float32Array.from({ length }, (_, i) => {
    const row = Math.floor(i / D);
    const [x, y] = [rowOf(row), rowOf(row - (row % D) + (i % D))];
    return x.reduce((sum, value, n) => sum + value * y[n], 0) / D;
  });
}
