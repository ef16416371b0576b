/** The objective of language models: the likelihood of each next token. */
import * as tf from '@tensorflow/tfjs';
import type { CausalLM } from '../../models/index.js';
import { type Batch, IGNORE_INDEX } from '../data/batch.js';
import type { Objective } from './objective.js';

export const nextTokens: Objective<CausalLM, Batch> = {
  unit: 'tokens',

  loss(model, batch, given) {
    const { inputs, targets, options } = tensorsOf(batch);
    return model.loss(inputs, targets, { ...options, ...given });
  },

  async score(model, batch, withHits) {
    const scored: tf.Scalar[] = tf.tidy(() => {
      const { inputs, targets, options } = tensorsOf(batch);
      if (!withHits) return [model.loss(inputs, targets, options)];
      const { loss, hits } = model.score(inputs, targets, options);
      return [loss, hits];
    });
    const [nats, hits] = await Promise.all(scored.map(async (x) => (await x.data())[0]));
    tf.dispose(scored);
    return { nats, hits };
  },

  tally(bytesPerToken) {
    let [nats, hits, tokens] = [0, 0, 0];
    return {
      add({ numTargets }, score) {
        nats += score.nats * numTargets;
        hits += score.hits ?? 0;
        tokens += numTargets;
      },
      result() {
        if (tokens === 0)
          throw new RangeError(
            'evaluate: there is no token to score; give more validation text or a shorter train.seqLen',
          );
        const loss = nats / tokens;
        if (bytesPerToken === undefined) return { loss, accuracy: hits / tokens, tokens };
        return { loss, bpb: bitsPerByte(loss, bytesPerToken), tokens };
      },
    };
  },
};

/** Nats per token to bits per byte; undefined when tokens stand for no bytes. */
export function bitsPerByte(nats: number, bytesPerToken: number): number;
export function bitsPerByte(nats: number, bytesPerToken: number | undefined): number | undefined;
export function bitsPerByte(nats: number, bytesPerToken: number | undefined): number | undefined {
  return bytesPerToken && nats / Math.LN2 / bytesPerToken;
}

/** A batch as `CausalLM.loss` takes it. Where at most half of the places have a target, only these are scored. */
function tensorsOf({ inputs, targets, batchSize, seqLen, numTargets, cuSeqlens }: Batch) {
  const shape: [number, number] = cuSeqlens ? [1, batchSize * seqLen] : [batchSize, seqLen];
  const sparse = numTargets > 0 && 2 * numTargets <= targets.length;
  const positions = sparse ? Int32Array.from(placesOfTargets(targets)) : undefined;
  return {
    inputs: tf.tensor2d(inputs, shape, 'int32'),
    targets: positions
      ? tf.tensor1d(
          positions.map((place) => targets[place]),
          'int32',
        )
      : tf.tensor2d(targets, shape, 'int32'),
    options: { cuSeqlens, positions },
  };
}

function* placesOfTargets(targets: Int32Array): Generator<number> {
  for (const [place, target] of targets.entries()) if (target !== IGNORE_INDEX) yield place;
}
