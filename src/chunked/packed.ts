/** Packed documents for the plain forms: each document runs alone, with its own state. */
import * as tf from '@tensorflow/tfjs';

/** What every mixing op returns: outputs [B, T, ...] and states [B, ...] (one entry per document when packed). */
export type OpOutput = { o: tf.Tensor; finalState: tf.Tensor };

/**
 * Cuts `tokens` (each [1, T, ...]) at `cuSeqlens` and `states` (each [N, ...]) into N single entries, calls `run` for every
 * document and joins what it returns: o along time, finalState along the batch.
 */
export function eachDocument<Token extends string, State extends string>(
  cuSeqlens: Int32Array,
  tokens: Record<Token, tf.Tensor>,
  states: Partial<Record<State, tf.Tensor>>,
  run: (tokens: Record<Token, tf.Tensor>, states: Partial<Record<State, tf.Tensor>>) => OpOutput,
): OpOutput {
  if (cuSeqlens.length === 2) return run(tokens, states); // the gradient of tf.split into one piece throws (4.22)
  const lengths = Array.from(cuSeqlens.subarray(1), (end, n) => end - cuSeqlens[n]);
  const single = lengths.map(() => 1);
  const tokenCuts = cut(tokens, lengths, 1);
  const stateCuts = cut(states, single, 0);
  const results = lengths.map((_, n) => run(tokenCuts[n], stateCuts[n]));
  return {
    o: tf.concat(
      results.map((r) => r.o),
      1,
    ),
    finalState: tf.concat(
      results.map((r) => r.finalState),
      0,
    ),
  };
}

/** One record per piece; absent tensors stay absent. */
function cut<R extends Partial<Record<string, tf.Tensor>>>(tensors: R, sizes: number[], axis: number): R[] {
  const pieces: Record<string, tf.Tensor>[] = sizes.map(() => ({}));
  for (const [name, tensor] of Object.entries(tensors)) {
    if (!tensor) continue;
    tf.split(tensor, sizes, axis).forEach((piece, n) => {
      pieces[n][name] = piece;
    });
  }
  return pieces as R[];
}
