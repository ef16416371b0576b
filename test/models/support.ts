/** Small models, token sequences and readings that the tests of this folder share. */
import * as tf from '@tensorflow/tfjs';
import type { CausalLM, ModelConfigInput, ModelState, NamedArrays } from '../../src/models/index.js';
import { random, values } from '../support/tensors.js';

/** Two layers of each kind of mixer, and every option that changes what is in the state. */
export const smallConfigs: Record<string, ModelConfigInput> = {
  gla: {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [{ type: 'gla', numHeads: 2 }],
    mlp: { intermediateSize: 24 },
  },
  'gla with convolutions, kv heads and a head of its own': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [{ type: 'gla', numHeads: 4, numKvHeads: 2, useShortConv: true, convBias: true, featureMap: 'relu' }],
    mlp: { intermediateSize: 24 },
    tieEmbeddings: false,
  },
  'gla and softmax attention': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [
      { type: 'gla', numHeads: 2, gateFn: 'sigmoid' },
      { type: 'softmax_attention', numHeads: 4, numKvHeads: 2 },
    ],
    mlp: { intermediateSize: 24 },
  },
  'kimi delta attention': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [{ type: 'kda', numHeads: 2, numVHeads: 4, headDim: 6, expandV: 0.5, allowNegEigval: true }],
    mlp: { intermediateSize: 24 },
  },
  'latent attention': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [
      { type: 'mla', numHeads: 2, kvLoraRank: 8, qkNopeHeadDim: 6, qkRopeHeadDim: 4, vHeadDim: 5, ropeBase: 100 },
    ],
    mlp: { intermediateSize: 24 },
  },
  'experts after a dense layer': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 3,
    mixers: [{ type: 'gla', numHeads: 2 }],
    mlp: { intermediateSize: 24, moe: { numExperts: 6, moeIntermediateSize: 8, numExpertGroup: 2 } },
  },
  'delta net and gated delta net': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [
      { type: 'delta_net', numHeads: 2, useOutputGate: true, allowNegEigval: true },
      { type: 'gated_delta_net', numHeads: 2, headDim: 6, numVHeads: 4, useShortConv: false },
    ],
    mlp: { intermediateSize: 24 },
  },
  'gated kalmanet and normed softmax attention': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [
      // with the usual ridge of 0.02 roundings are magnified by up to 51
      { type: 'gka', numHeads: 4, numKHeads: 2, numVHeads: 2, headDim: 6, normEps: 1e-5, ridgeRatio: 0.5 },
      { type: 'softmax_attention', numHeads: 4, numKvHeads: 2, qkNorm: true },
    ],
    mlp: { intermediateSize: 24 },
  },
  'state spaces': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [
      { type: 's5', stateSize: 16, blocks: 2 },
      { type: 's5', stateSize: 8, blocks: 1, gate: 'full_glu', discretisation: 'bilinear', ptd: { method: 'skew' } },
    ],
    mlp: { intermediateSize: 24 },
  },
  'diagonal state spaces': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [
      { type: 's4d', stateSize: 8 },
      { type: 's4d', stateSize: 6, spectrum: 'lin', copies: 2, discretisation: 'bilinear', gate: null },
    ],
    mlp: { intermediateSize: 24 },
  },
  'ternary weights all over': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 3,
    mixers: [{ type: 'mlgru', expandRatio: 1.5 }],
    mlp: { intermediateSize: 24, type: 'bit_glu' },
    linear: 'bit',
    tieEmbeddings: false,
  },
  'ternary weights after convolutions': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [
      { type: 'mlgru', useShortConv: true },
      { type: 'mlgru', useShortConv: true, shareConvKernel: false, convSize: 3, expandRatio: 1 },
    ],
    mlp: { intermediateSize: 24, type: 'bit_glu' },
    linear: 'bit',
    tieEmbeddings: false,
  },
  'attention with a window': {
    vocabSize: 37,
    hiddenSize: 16,
    numLayers: 2,
    mixers: [{ type: 'softmax_attention', numHeads: 2, window: 5 }],
    mlp: { intermediateSize: 24 },
  },
};

/** Weights large enough that every path matters in the logits; 0.02 would leave the blocks near zero. */
export const lively = { initializerRange: 0.3 };

/** n token ids below `vocabSize`. */
export function tokenIds(seed: number, n: number, vocabSize = 37): Int32Array {
  const next = random(seed);
  return Int32Array.from({ length: n }, () => Math.floor(next() * vocabSize));
}

/** [B, T] int32 */
export function idTensor(ids: Int32Array, B = 1): tf.Tensor2D {
  return tf.tensor2d(ids, [B, ids.length / B], 'int32');
}

/** Logits of `ids` read in pieces of the given lengths, one array of [T, V]; frees everything. */
export function logitsInPieces(model: CausalLM, ids: Int32Array, lengths: number[]): Float32Array {
  const all: Float32Array[] = [];
  let state: ModelState | undefined;
  let at = 0;
  for (const length of lengths) {
    const tokens = idTensor(ids.subarray(at, at + length));
    const { logits, state: next } = model.forward(tokens, state);
    all.push(logits.dataSync().slice() as Float32Array);
    tf.dispose([tokens, logits, state ?? []]);
    state = next;
    at += length;
  }
  tf.dispose(state ?? []);
  return Float32Array.from(all.flatMap((piece) => [...piece]));
}

/** Bytes of all tensors of a state. */
export const heldBytes = (state: ModelState): number =>
  state.flatMap((layer) => Object.values(layer)).reduce((sum, x) => sum + 4 * x.size, 0);

/** Numbers that bfloat16 holds exactly: 16 bits of the float are cut off. */
export function toBfloat16(x: tf.Tensor): tf.Tensor {
  const bits = new Uint32Array(Float32Array.from(values(x)).buffer).map((b) => b & 0xffff0000);
  return tf.tensor(new Float32Array(bits.buffer), x.shape);
}

/** The weights of a model as `loadWeights` takes them. */
export function arrays(model: CausalLM): NamedArrays {
  return new Map(
    [...model.weights].map(([name, x]) => [name, { shape: [...x.shape], data: Float32Array.from(x.dataSync()) }]),
  );
}
