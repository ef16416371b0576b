/** What all contestants start from: one safetensors file with weights, inputs and upstream, read in Python too. */
import { readFileSync, writeFileSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs';
import { readSafetensors, type TensorToWrite, writeSafetensors } from '../../src/formats/safetensors.js';
import { initialS4d, initialS5, interleaved, Rng } from '../../src/ssm/index.js';

/** Channels; complex modes of each in S4D; complex modes of S5. */
export const [H, M, P] = [128, 32, 64];

export type Weights = Record<string, tf.Tensor>;

/** Writes the weights of both layers, `u` and `gY` [T, H]. */
export function writeStart(file: string, T: number): void {
  const rng = new Rng(0);
  const s4d = initialS4d({ hiddenSize: H, stateSize: 2 * M, spectrum: 'lin' }, rng.split('s4d'));
  const s5 = initialS5({ hiddenSize: H, stateSize: 2 * P }, rng.split('s5'));
  const tokens = (name: string) => {
    const stream = rng.split(name);
    return Float32Array.from({ length: T * H }, () => stream.normal());
  };
  const tensors: Record<string, [number[], ArrayLike<number>]> = {
    'tokens.u': [[T, H], tokens('u')],
    'tokens.gY': [[T, H], tokens('gY')],
    's4d.logDt': [[H], s4d.logDt],
    's4d.logAReal': [[H, M], s4d.a.re.map((x) => Math.log(-x))],
    's4d.aImag': [[H, M], s4d.a.im],
    's4d.c': [[H, M, 2], interleaved(s4d.c)],
    's4d.d': [[H], s4d.d],
    's5.lambdaRe': [[P], s5.lambda.re],
    's5.lambdaIm': [[P], s5.lambda.im],
    's5.logStep': [[P], s5.logStep],
    's5.b': [[P, H, 2], interleaved(s5.b)],
    's5.c': [[H, P, 2], interleaved(s5.c)],
    's5.d': [[H], s5.d],
  };
  const written = Object.entries(tensors).map(([name, [shape, data]]): [string, TensorToWrite] => [
    name,
    { dtype: 'F32', shape, data: Float32Array.from(data) },
  ]);
  writeFileSync(file, writeSafetensors(new Map(written), { facts: '{}' }));
}

/** The weights of one layer by their names without its prefix, and the first T tokens [1, T, H] of u and gY. */
export function readStart(
  file: string | undefined,
  layer: string,
  T: number,
): { weights: Weights; u: tf.Tensor; gY: tf.Tensor } {
  if (!file) throw new Error('bench ssm: a task needs a handover file, got none');
  const { tensors } = readSafetensors(readFileSync(file));
  const tokens = (name: string) => {
    const { data } = tensors.get(`tokens.${name}`) as { data: Float32Array };
    return tf.tensor(data.slice(0, T * H), [1, T, H], 'float32');
  };
  const mine = [...tensors].filter(([name]) => name.startsWith(`${layer}.`));
  const weights = mine.map(([name, { shape, data }]) => [
    name.slice(layer.length + 1),
    tf.tensor(data as Float32Array, shape, 'float32'),
  ]);
  return { weights: Object.fromEntries(weights), u: tokens('u'), gY: tokens('gY') };
}
