/**
 * Scatterbrain attention (Chen et al. 2021, https://arxiv.org/abs/2110.15343): softmax attention in time linear in the number of tokens, exact on a
 * sparse support and by positive random features (Choromanski et al. 2020, https://arxiv.org/abs/2009.14794) off it.
 */
import * as tf from '@tensorflow/tfjs';
import { detached } from '../detached.js';
import { isFused } from '../form.js';
import type { CoreSettings } from './core.js';
import { fusedScatterbrain } from './fused.js';
import {
  checkCall,
  type RotationHash,
  type ScatterbrainInputs,
  type ScatterbrainOptions,
  type ScatterbrainOutput,
  type ScatterbrainState,
} from './inputs.js';
import { plainScatterbrain } from './plain.js';
import { roundsOf } from './rounds.js';
import { bucketsAfter, windowAfter, withPast } from './state.js';

/**
 * o_t = sum_j A_tj v_j / sum_j A_tj over the keys that query t may see, with A_tj = exp(s q_t . k_j) where the pair is on the support (in the window, or
 * in one bucket in some round of the hash) and phi(q_t) . phi(k_j), an unbiased estimate of it, elsewhere. Every pair counts once, however many rounds
 * find it. Differentiable in q, k, v and the float parts of the state; support and projection are constants.
 * Causal inputs may be cut anywhere and carried over by `finalState` -> `initialState`.
 * @throws TypeError when an input is missing or of another dtype
 * @throws RangeError when a shape or an option is wrong
 */
export function scatterbrain(inputs: ScatterbrainInputs, options: ScatterbrainOptions = {}): ScatterbrainOutput {
  checkCall(inputs, options);
  const fused = isFused('scatterbrain', options.form ?? 'auto');
  const run = fused ? fusedScatterbrain : plainScatterbrain;
  const { causal = true, mode = 'sum', cuSeqlens, softmaxTemp = (inputs.q.shape[3] as number) ** -0.5 } = options;
  const sparse = mode !== 'low-rank-only';
  const windowSize = sparse ? (options.windowSize ?? 0) : 0;
  const hash = sparse ? options.hash : undefined;
  const streams = causal && !cuSeqlens && hash?.type !== 'sorted' && !(sparse && inputs.queryBuckets);
  const outputFinalState = streams && (options.outputFinalState ?? true);
  const state = inputs.initialState;
  return tf.tidy((): ScatterbrainOutput => {
    const { q } = inputs;
    const k = withPast(inputs.k, state?.k, state?.bucketK);
    const v = withPast(inputs.v, state?.v, state?.bucketV);
    const [slots, past] = [state?.bucketK?.shape[1] ?? 0, state?.k?.shape[1] ?? 0];
    const position = state ? state.position.dataSync()[0] : 0;
    const settings: CoreSettings = {
      ...{ softmaxTemp, causal, windowSize: causal ? windowSize : 0, slots, past, cuSeqlens, outputFinalState },
      keep: (x) => tf.tensor1d(x, 'int32'),
    };
    const rounds = sparse
      ? roundsOf(inputs, { ...options, hash, windowSize, causal, fused }, { slots, past, position })
      : [];
    const { lowRank, normalizer, exponent } = mode === 'sparse-only' ? ({} as ScatterbrainState) : (state ?? {});
    const scale = exponent && detached(exponent); // a whole number: the gradient of what it scales leaves it alone
    const projection = mode === 'sparse-only' || !inputs.projection ? undefined : detached(inputs.projection);
    const { o, ...after } = run({ q, k, v, projection, lowRank, normalizer, exponent: scale }, settings, rounds);
    if (!outputFinalState) return { o };
    const finalState: ScatterbrainState = {
      position: tf.tensor1d([position + (q.shape[1] as number)], 'int32'),
      ...after,
      ...(windowSize > 0 && { k: windowAfter(k, slots, windowSize), v: windowAfter(v, slots, windowSize) }),
      ...(hash && bucketsAfter(k, v, rounds, hash as RotationHash, { position, past })),
    };
    return { o, finalState };
  });
}
