/** Settings of the mixer `mla`: multi-head latent attention (DeepSeek-AI 2024, https://arxiv.org/abs/2405.04434, Sec. 2.1). */
import * as z from 'zod';
import { count, mixerSettings } from './mixer.js';

export const mlaSchema = z.strictObject({
  type: z.literal('mla'),
  numHeads: count().default(4),
  kvLoraRank: count().default(512).describe('width of the compressed keys and values, most of what is cached'),
  qkNopeHeadDim: count().default(128).describe("channels of a head's query and key made from the latent"),
  qkRopeHeadDim: count().default(64).describe('channels of the one key all heads share'),
  vHeadDim: count().default(128).describe("width of a head's value"),
  qLoraRank: count().nullable().default(null).describe('width the queries are squeezed through; null: not at all'),
  ropeBase: z.number().gt(1).nullable().default(null).describe('base of the rotary positions; null: none'),
});

export type MlaConfig = z.output<typeof mlaSchema>;

export const mla = mixerSettings({
  schema: mlaSchema,
  rules: ({ ropeBase, qkRopeHeadDim }) =>
    ropeBase && qkRopeHeadDim && qkRopeHeadDim % 2
      ? [['qkRopeHeadDim', `must be even for rotary positions, got ${qkRopeHeadDim}`]]
      : [],
  resolve: (m) => m,
});
