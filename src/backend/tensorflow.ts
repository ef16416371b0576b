/** The native TensorFlow backend: `@tensorflow/tfjs-node-gpu` or `@tensorflow/tfjs-node`, where the user has installed one. */
import * as tf from '@tensorflow/tfjs';
import { importOptional, isNode } from './optional.js';

export const TENSORFLOW_PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'];

/** Imports the first of the two that loads. @throws Error naming the remedy when neither does */
export async function loadTensorflow(): Promise<void> {
  if (tf.findBackendFactory('tensorflow')) return;
  if (!isNode()) throw new Error("useBackend: the tensorflow backend runs in Node only; use useBackend('wasm')");
  const failures: string[] = [];
  for (const name of TENSORFLOW_PACKAGES) {
    const failure = await importOptional(name, name).then(
      () => undefined,
      (error: Error) => error.message,
    );
    if (!failure && tf.findBackendFactory('tensorflow')) return;
    failures.push(failure ?? `${name}: it registered no backend (another copy of '@tensorflow/tfjs-core'?)`);
  }
  throw new Error(
    `useBackend: the tensorflow backend needs a native package; npm install @tensorflow/tfjs-node@${tf.version.tfjs} (Node 20 or 22), or use useBackend('wasm'). Tried ${failures.join('; ')}`,
  );
}
