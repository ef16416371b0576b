/** One way through all delta rules: DeltaNet, Gated DeltaNet and KDA are one recurrence with no gate, one per head, one per channel. */
import * as tf from '@tensorflow/tfjs';
import { eachDocument, type OpOutput } from '../packed.js';
import { hasFusedKernels } from '../wasm/runtime.js';
import { chunkDelta } from './chunk.js';
import { fusedDelta } from './fused.js';
import type { AnyDeltaInputs, DeltaOptions, DeltaOutput } from './inputs.js';
import { recurrentDelta } from './recurrent.js';

/** Inputs and options are already checked; `op` names the op in errors. */
export function runDelta(op: string, inputs: AnyDeltaInputs, options: DeltaOptions): DeltaOutput {
  const { form = 'auto', scale = (inputs.q.shape[3] as number) ** -0.5, cuSeqlens } = options;
  if (form === 'auto' && hasFusedKernels(op)) return fusedDelta(inputs, scale, cuSeqlens);
  return runPlain(inputs, options, { chunk: chunkDelta, recurrent: recurrentDelta });
}

interface PlainInputs {
  q: tf.Tensor;
  initialState?: tf.Tensor;
}

/** The plain forms of an op, same contract. */
export interface PlainForms<I> {
  chunk(inputs: I, scale: number, chunkSize: number): OpOutput;
  recurrent(inputs: I, scale: number): OpOutput;
}

/** Runs the form that is asked for, document by document where there are several. */
export function runPlain<I extends PlainInputs>(
  inputs: I,
  { form, chunkSize = 64, scale = (inputs.q.shape[3] as number) ** -0.5, cuSeqlens }: DeltaOptions,
  { chunk, recurrent }: PlainForms<I>,
): OpOutput {
  const run = (x: I) => (form === 'recurrent' ? recurrent(x, scale) : chunk(x, scale, chunkSize));
  return tf.tidy(() => {
    if (!cuSeqlens) return run(inputs);
    const { initialState, ...tokens } = inputs;
    const perToken = tokens as Record<string, tf.Tensor>;
    return eachDocument(cuSeqlens, perToken, { initialState }, (x, state) => run({ ...x, ...state } as unknown as I));
  });
}
