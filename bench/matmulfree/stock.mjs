/**
 * The peer: the same model with its ternary weights as float32, in plain ops of TensorFlow.js on its own wasm backend. Matrices lie [in, out],
 * where its product takes XNNPACK (the other way it is a scalar loop). Activations are rounded for the outputs that are compared only: timed
 * is the float model, without the cost of rounding, and with one norm for projections that share their input.
 */
import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';
import { setTimeout } from 'node:timers/promises';
import { serve } from './serve.mjs';
import { D, embeddingAt, idsOf, LAYER, LAYERS, scaleOf, TOKENS, ternaryBytes, VOCABULARY } from './weights.mjs';

serve(async ({ T, idle }) => {
  await tf.setBackend('wasm');
  if (idle) return { run: () => setTimeout(200) };
  const names = Object.keys(LAYER);
  const layer = (i) =>
    Object.fromEntries(names.map((name) => [name, matrix(`model.layers.${i}.${name}.weight`, LAYER[name])]));
  const layers = Array.from({ length: LAYERS }, (_, i) => layer(i));
  const head = matrix('lm_head.weight', [VOCABULARY, D]);
  const pieces = T > 1 ? [idsOf(T)] : [...idsOf(TOKENS)].map((id) => Int32Array.of(id));
  const read = (rounds) => tf.tidy(() => last({ layers, head, rounds }, pieces));
  return { run: () => void read(false), outputs: read(true) };
});

/** [in, out], from the rows of four codes a byte. */
function matrix(name, [rows, columns]) {
  const [bytes, scale] = [ternaryBytes(name, [rows, columns]), scaleOf([rows, columns])];
  const values = new Float32Array(rows * columns);
  for (let at = 0; at < columns / 4; at++)
    for (let row = 0; row < rows; row++) {
      const byte = bytes[(row * columns) / 4 + at];
      for (let j = 0; j < 4; j++) values[(4 * at + j) * rows + row] = (((byte >> (2 * j)) & 3) - 1) / scale;
    }
  return tf.tensor2d(values, [columns, rows]);
}

function last(model, pieces) {
  let [states, logits] = [model.layers.map(() => tf.zeros([1, D])), undefined];
  for (const ids of pieces) {
    const next = forward(model, ids, states);
    states = next.states;
    logits = [...next.logits.dataSync()];
  }
  return logits;
}

function forward({ layers, head, rounds }, ids, states) {
  const rows = Float32Array.from({ length: ids.length * D }, (_, i) => embeddingAt(ids[Math.floor(i / D)], i % D));
  let x = tf.tensor2d(rows, [ids.length, D]);
  const bit = (y) => (rounds ? rounded(norm(y)) : norm(y));
  const after = layers.map((weights, i) => {
    const mixed = mix(bit(norm(x)), weights, { state: states[i], bound: i / LAYERS, bit });
    x = tf.add(x, mixed.y);
    const both = tf.matMul(bit(norm(x)), weights['mlp.gate_proj']);
    const [gate, up] = tf.split(both, 2, 1);
    x = tf.add(x, tf.matMul(bit(tf.mul(silu(gate), up)), weights['mlp.down_proj']));
    return mixed.state;
  });
  const end = tf.slice(x, [ids.length - 1, 0], [1, D]);
  return { logits: tf.matMul(bit(norm(end)), head), states: after };
}

/** Layer 0 has no lower bound, which is what a bound of 0 is. */
function mix(x, weights, { state, bound, bit }) {
  const f = tf.add(tf.mul(tf.sigmoid(tf.matMul(x, weights['attn.f_proj'])), 1 - bound), bound);
  const input = tf.mul(silu(tf.matMul(x, weights['attn.i_proj'])), tf.sub(1, f));
  const [keep, add] = [f, input].map((z) => tf.split(z, z.shape[0], 0));
  let h = state;
  const all = keep.map((k, t) => {
    h = tf.add(tf.mul(k, h), add[t]);
    return h;
  });
  const gated = tf.mul(norm(tf.matMul(x, weights['attn.g_proj'])), silu(all.length > 1 ? tf.concat(all, 0) : all[0]));
  return { y: tf.matMul(bit(gated), weights['attn.o_proj']), state: h };
}

const norm = (x) => tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 1e-6)));
const silu = (x) => tf.mul(x, tf.sigmoid(x));

/** To 255 steps a row, as the ternary model has it. */
function rounded(y) {
  const scale = tf.div(127, tf.maximum(tf.max(tf.abs(y), -1, true), 1e-5));
  return tf.div(tf.round(tf.mul(y, scale)), scale);
}
