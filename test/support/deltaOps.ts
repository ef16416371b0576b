/** The delta rules and DPLR as the properties take them. */
import {
  type DeltaOptions,
  type DplrInputs,
  deltaRule,
  dplr,
  gatedDeltaRule,
  type KdaInputs,
  kda,
} from '../../src/chunked/index.js';
import { type DeltaOracleInputs, deltaOracle } from '../oracle/delta.js';
import { type DplrOracleInputs, dplrOracle } from '../oracle/dplr.js';
import {
  type Draw,
  drawGate,
  drawSameRows,
  drawUniform,
  drawUnitRows,
  type GateStrength,
  type MixingOp,
} from './opProperties.js';

/** No gate, one per head, one per channel. */
export const deltaGates = { deltaRule: 'none', gatedDeltaRule: 'head', kda: 'channel' } as const;
export type DeltaName = keyof typeof deltaGates;
const ops = { deltaRule, gatedDeltaRule, kda };

/** How write strengths are drawn. */
export const strengths = {
  usual: drawUniform(0, 1),
  'negative eigenvalues': drawUniform(0, 2),
  none: drawUniform(0, 0),
  'all two': drawUniform(2, 2),
} satisfies Record<string, Draw>;

export interface DeltaKind {
  gate?: GateStrength;
  beta?: keyof typeof strengths;
  keys?: 'unit' | 'same';
  /** Value heads for a head of q and k. */
  groups?: number;
}

/** A delta rule of this kind. */
export function deltaOp(
  name: DeltaName,
  { gate = 'mixed', beta = 'usual', keys = 'unit', groups = 1 }: DeltaKind = {},
): MixingOp {
  return {
    tokens: ({ B, T, H, K, V }) => ({
      q: [B, T, H, K],
      k: [B, T, H, K],
      v: [B, T, H * groups, V],
      beta: [B, T, H * groups],
      ...{ none: {}, head: { g: [B, T, H * groups] }, channel: { g: [B, T, H * groups, K] } }[deltaGates[name]],
    }),
    states: ({ H, K, V }, N) => ({ initialState: { shape: [N, H * groups, K, V], final: 'finalState' } }),
    outputs: ({ B, T, H, V }) => ({ o: [B, T, H * groups, V] }),
    draw: { k: { unit: drawUnitRows, same: drawSameRows }[keys], beta: strengths[beta], g: drawGate(gate) },
    run: (inputs, options) => ops[name](inputs as unknown as KdaInputs, options as DeltaOptions),
    oracle: (inputs, { H, ...sizes }, { cuSeqlens }, { o, finalState }) => {
      const dims = { ...sizes, H, HV: H * groups };
      const upstream = { dO: o, dFinalState: finalState };
      const want = deltaOracle(inputs as unknown as DeltaOracleInputs, dims, { cuSeqlens }, upstream);
      return { ...want, dBeta: want.dbeta };
    },
  };
}

/** DPLR; a and b are of length 1 in directions of their own, so that eigenvalues stay below 2 and mostly below 1. */
export function dplrOp(gate: GateStrength = 'mixed'): MixingOp {
  return {
    tokens: ({ B, T, H, K, V }) => {
      const keys = [B, T, H, K];
      return { q: keys, k: keys, v: [B, T, H, V], a: keys, b: keys, g: keys };
    },
    states: ({ H, K, V }, N) => ({ initialState: { shape: [N, H, K, V], final: 'finalState' } }),
    outputs: ({ B, T, H, V }) => ({ o: [B, T, H, V] }),
    draw: { a: drawUnitRows, b: drawHalfRows, g: drawGate(gate) },
    run: (inputs, options) => dplr(inputs as unknown as DplrInputs, options as DeltaOptions),
    oracle: (inputs, sizes, { cuSeqlens }, { o, finalState }) => ({
      ...dplrOracle(inputs as unknown as DplrOracleInputs, sizes, { cuSeqlens }, { dO: o, dFinalState: finalState }),
    }),
  };
}

const drawHalfRows: Draw = (seed, length, shape) => drawUnitRows(seed, length, shape).map((x) => x / 2);
