/** Packed documents for the forms that know one sequence a row: each runs alone, from its own state. */
import * as tf from '@tensorflow/tfjs';
import { eachDocument } from '../packed.js';
import type { StateInputs, StateOptions, StateOutput } from './states.js';

/** `run` on every document, or on the whole batch where there are none. */
export function documents(
  cuSeqlens: Int32Array | undefined,
  inputs: StateInputs,
  { final }: Pick<StateOptions, 'final'>,
  run: (inputs: StateInputs) => StateOutput,
): StateOutput {
  if (!cuSeqlens) return run(inputs);
  const { u, initialState, ...weights } = inputs;
  const { o, finalState } = eachDocument(cuSeqlens, { u }, { initialState }, (tokens, states) => {
    const out = run({ ...weights, ...tokens, ...states });
    return { o: out.o, finalState: out.finalState ?? tf.zeros([1]) };
  });
  return { o, ...(final && { finalState }) };
}
