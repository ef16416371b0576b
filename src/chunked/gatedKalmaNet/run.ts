/** Choice of the form: first the solve, which changes the queries, then gated linear attention with them. */
import * as tf from '@tensorflow/tfjs';
import { gla } from '../gla/index.js';
import { eachDocument, type OpOutput } from '../packed.js';
import { hasFusedKernels } from '../wasm/runtime.js';
import { chunkSolve } from './chunk.js';
import { fusedQueries, type QueryInputs } from './fused.js';
import type { GatedKalmaNetInputs, GatedKalmaNetOptions, GatedKalmaNetOutput } from './inputs.js';
import { recurrentSolve } from './recurrent.js';

/** What the plain solve needs; g is 0 where kk does not decay. */
export interface SolveInputs {
  q: tf.Tensor;
  k: tf.Tensor;
  g: tf.Tensor;
  /** [N, H, D, D]; zeros when absent. */
  kk?: tf.Tensor;
}

export type SolveOptions = Required<
  Pick<GatedKalmaNetOptions, 'numIterations' | 'ridgeRatio' | 'solver' | 'lambdaGradient' | 'form' | 'chunkSize'>
> &
  Pick<GatedKalmaNetOptions, 'cuSeqlens'>;

/** Inputs and options are already checked. */
export function runGatedKalmaNet(inputs: GatedKalmaNetInputs, options: GatedKalmaNetOptions): GatedKalmaNetOutput {
  const { v, k, g, initialState } = inputs;
  const { form = 'auto', chunkSize = 64, scale, cuSeqlens } = options;
  return tf.tidy(() => {
    const { o: queries, finalState: kk } = ridgeQueries(inputs, options);
    const read = gla({ q: queries, k, v, g, initialState: initialState?.kv }, { scale, chunkSize, form, cuSeqlens });
    return { o: read.o, finalState: { kk, kv: read.finalState } };
  });
}

/**
 * The queries that `gla` reads with, q + alpha (x - q) [B, T, H, D], as `o`: the solutions x where alpha is 1. And kk after the last token of
 * every sequence. Inputs and options are already checked; inside a tidy of the caller.
 */
export function ridgeQueries(
  { q, k, g, alpha, initialState }: Omit<GatedKalmaNetInputs, 'v'>,
  options: GatedKalmaNetOptions,
): OpOutput {
  const { form = 'auto', chunkSize = 64, cuSeqlens, decayKk = true } = options;
  const { numIterations = 30, ridgeRatio = 0.02, solver = 'chebyshev', lambdaGradient = true } = options;
  const isFused = form === 'auto' && solver === 'chebyshev' && hasFusedKernels('gatedKalmaNet');
  const given = { q, k, alpha, g: decayKk ? g : undefined, kk: initialState?.kk };
  const solveOptions = { numIterations, ridgeRatio, solver, lambdaGradient, form, chunkSize, cuSeqlens };
  return (isFused ? fusedQueries : plainQueries)(given, solveOptions);
}

/** By plain ops; kk does not decay without g. */
function plainQueries({ alpha, g, ...inputs }: QueryInputs, options: SolveOptions): OpOutput {
  const { q } = inputs;
  const { o: x, finalState } = solveQueries({ ...inputs, g: g ?? tf.zerosLike(alpha) }, options);
  return { o: tf.add(q, tf.mul(tf.expandDims(alpha, 3), tf.sub(x, q))), finalState };
}

/** The solutions x [B, T, H, D] as `o`, and kk after the last token of every sequence. */
export function solveQueries({ kk, ...tokens }: SolveInputs, options: SolveOptions): OpOutput {
  const { form, cuSeqlens } = options;
  const start = kk && symmetricPart(kk);
  const run = (x: SolveInputs) => (form === 'recurrent' ? recurrentSolve(x, options) : chunkSolve(x, options));
  if (!cuSeqlens) return run({ ...tokens, kk: start });
  return eachDocument(cuSeqlens, tokens, { kk: start }, (x, state) => run({ ...x, ...state }));
}

/** Also what makes the gradient on kk symmetric. */
function symmetricPart(kk: tf.Tensor): tf.Tensor {
  return tf.mul(0.5, tf.add(kk, tf.transpose(kk, [0, 1, 3, 2])));
}
