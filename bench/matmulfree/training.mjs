/**
 * Gradients of a stack of MatMul-free layers, `bitLinear` fused (`form: auto`) or in plain ops (`form: plain`, which keeps what it computed
 * for the backward pass), all other ops the same. `idle`: only starts the backend.
 */

import { setTimeout } from 'node:timers/promises';
import * as tf from '@tensorflow/tfjs';
import { useBackend } from 'seqmix';
import { bitLinear, gatedRmsNorm, linearScan, mlgruGate, rmsNorm, swiGlu } from 'seqmix/chunked';
import { serve } from './serve.mjs';

const [D, INNER, LAYERS] = [256, 768, 4];
const SHAPES = { i: [D, D], f: [D, D], g: [D, D], o: [D, D], up: [2 * INNER, D], down: [D, INNER] };

serve(async ({ T, form, idle }) => {
  await useBackend('wasm');
  if (idle) return { run: () => setTimeout(200) };
  const names = Object.keys(SHAPES);
  const weights = Array.from({ length: LAYERS }, (_, layer) =>
    names.map((name, i) => tf.variable(tf.randomNormal(SHAPES[name], 0, 0.02, 'float32', 10 * layer + i + 1))),
  );
  const x = tf.randomNormal([1, T, D], 0, 1, 'float32', 999);
  const loss = () => {
    const layer = (matrices) => Object.fromEntries(names.map((name, i) => [name, matrices[i]]));
    return tf.mean(tf.square(weights.reduce((h, matrices) => block(h, layer(matrices), form), x)));
  };
  const step = (read) => {
    const { value, grads } = tf.variableGrads(loss);
    const all = [value, ...Object.values(grads)];
    const result = all.map((g) => (read ? tf.tidy(() => tf.norm(g).dataSync()[0]) : 0));
    tf.dispose(all);
    return result;
  };
  return { run: () => void step(false), outputs: step(true) };
});

function block(x, w, form) {
  const bit = (x, weight) => bitLinear({ x, weight }, { form });
  const normed = rmsNorm({ x });
  const { keep, input } = mlgruGate({ f: bit(normed, w.f), i: bit(normed, w.i) });
  const { o: h } = linearScan({ a: keep, b: input });
  const mixed = tf.add(x, bit(gatedRmsNorm({ x: bit(normed, w.g), gate: h }), w.o));
  return tf.add(mixed, bit(swiGlu({ x: bit(rmsNorm({ x: mixed }), w.up) }), w.down));
}
