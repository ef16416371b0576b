/** Ours: `CausalLM` of packed weights. Reads `T` bytes at once, or decodes `TOKENS` one after another; `idle`: only starts the backend. */

import { setTimeout } from 'node:timers/promises';
import * as tf from '@tensorflow/tfjs';
import { useBackend } from 'seqmix';
import { CausalLM, describe } from 'seqmix/models';
import { serve } from './serve.mjs';
import { D, embeddingAt, INNER, idsOf, LAYERS, scaleOf, TOKENS, ternaryBytes, VOCABULARY } from './weights.mjs';

const config = {
  ...{ vocabSize: VOCABULARY, hiddenSize: D, numLayers: LAYERS, mixers: ['mlgru'], linear: 'bit', packed: '2bit' },
  ...{ mlp: { type: 'bit_glu', intermediateSize: INNER }, tieEmbeddings: false },
};

serve(async ({ T, idle }) => {
  await useBackend('wasm');
  if (idle) return { run: () => setTimeout(200) };
  const model = new CausalLM(config, drawn());
  const pieces = T > 1 ? [idsOf(T)] : [...idsOf(TOKENS)].map((id) => Int32Array.of(id));
  const read = () => tf.tidy(() => last(model, pieces));
  return { run: () => void read(), outputs: read() };
});

/** Every weight as `CausalLM` takes it; the bytes of a ternary one are drawn when they are asked for. */
function drawn() {
  const [weights, packed] = [new Map(), new Map()];
  for (const { name, shape } of describe(config).weights) {
    const ternary = /_proj\.weight$|^lm_head\.weight$/.test(name);
    if (ternary) packed.set(name, packedMatrix(name, shape));
    else weights.set(name, { shape, data: dense(name, shape) });
  }
  return { weights, packed };
}

const packedMatrix = (name, shape) => ({
  ...{ shape, packing: { encoding: '2bit' }, scale: scaleOf(shape) },
  get bytes() {
    return ternaryBytes(name, shape);
  },
});

function dense(name, shape) {
  const data = new Float32Array(shape.reduce((a, b) => a * b));
  if (name.endsWith('lower_bounds')) return data;
  return name.includes('norm') ? data.fill(1) : data.map((_, i) => embeddingAt(Math.floor(i / D), i % D));
}

/** The logits after the last piece. */
function last(model, pieces) {
  let [state, logits] = [undefined, undefined];
  for (const ids of pieces) {
    const next = model.forward(tf.tensor2d(ids, [1, ids.length], 'int32'), state, { lastOnly: true });
    state = next.state;
    logits = [...next.logits.dataSync()]; // read, as sampling does
  }
  return logits;
}
