/**
 * Ops and layers run on the inputs of a golden file; results bear the file's names. Free of vitest, and of `src` but for types: pages
 * in a browser run these with the built package.
 */
import type * as tf from '@tensorflow/tfjs';
import type { GatedKalmaNetInputs, GatedKalmaNetOptions, GatedKalmaNetOutput } from '../../src/chunked/index.js';
import type {
  GatedKalmaNetOptions as GatedKalmaNetLayerOptions,
  GatedLinearAttentionOptions,
  KimiDeltaAttentionOptions,
  LayerOutput,
} from '../../src/layers/index.js';
import { outputsAndGrads } from './grads.js';

export type Tensors = Record<string, tf.Tensor>;
/** What the manifest says of a file: the published names of options, as strings. */
export type Config = Record<string, string>;

/** Any op of the common contract, its inputs by their names in the files. */
type MixingOp<I, O> = (inputs: I, options: O) => { o: tf.Tensor; finalState: tf.Tensor };

/** Inputs of the ops, by the files' names. */
const opInputs = ['q', 'k', 'v', 'beta', 'a', 'b', 'g', 'initial_state'];

/** Outputs, final state and every gradient. */
export function runOp<I, O extends { scale?: number }>(
  op: MixingOp<I, O>,
  config: Config,
  file: Tensors,
  options: O,
): Tensors {
  const names = opInputs.filter((name) => file[name]);
  const inputs = Object.fromEntries(names.map((name) => [name, file[name]]));
  const run = ({ initial_state, ...tokens }: Tensors): tf.Tensor[] => {
    const given = { ...tokens, ...(initial_state && { initialState: initial_state }) };
    const { o, finalState } = op(given as I, { scale: Number(config.scale), ...options });
    return [o, finalState];
  };
  const { outputs, grads } = outputsAndGrads(run, inputs, [file.do, file.d_final_state]);
  const gradName = (name: string) => (name === 'initial_state' ? 'd_initial_state' : `d${name}`);
  return {
    ...{ o: outputs[0], final_state: outputs[1] },
    ...Object.fromEntries(names.map((name) => [gradName(name), grads[name]])),
  };
}

/** Gated KalmaNet: outputs, both final states and every gradient, by the files' names without the solver's. */
export function runGatedKalmaNet(
  op: (inputs: GatedKalmaNetInputs, options: GatedKalmaNetOptions) => GatedKalmaNetOutput,
  config: Config,
  file: Tensors,
  options: GatedKalmaNetOptions,
): Tensors {
  const names = ['q', 'k', 'v', 'g', 'alpha', 'initial_h', 'initial_u'].filter((name) => file[name]);
  const inputs = Object.fromEntries(names.map((name) => [name, file[name]]));
  const run = ({ initial_h, initial_u, ...tokens }: Tensors): tf.Tensor[] => {
    const given = { ...tokens, ...(initial_h && { initialState: { kk: initial_h, kv: initial_u } }) };
    const ridge = { numIterations: Number(config.num_iter), ridgeRatio: Number(config.ridge_ratio) };
    const { o, finalState } = op(given as never, { scale: Number(config.scale), ...ridge, ...options });
    return [o, finalState.kk, finalState.kv];
  };
  const { outputs, grads } = outputsAndGrads(run, inputs, [file.do, file.d_final_h, file.d_final_u]);
  return {
    ...{ o: outputs[0], final_h: outputs[1], final_u: outputs[2] },
    ...Object.fromEntries(names.map((name) => [name.startsWith('initial') ? `d_${name}` : `d${name}`, grads[name]])),
  };
}

/** What is needed of the layer, be it of `src` or of the package. */
interface Layer {
  buildWith(init: (name: string, spec: { shape: number[] }) => Float32Array): void;
  forward(x: tf.Tensor): LayerOutput;
  weightsByName(): Map<string, tf.Variable>;
  dispose(): unknown;
}

/** The file's name for a weight of the layer; by default the layer's own. */
type NameInFile = (weight: string) => string;

/**
 * y, final states, and the gradients on x and every weight, of a layer with the file's weights; the layer is disposed.
 * @param states the layer's name of each final state in the file
 */
export function runLayer(
  layer: Layer,
  { key_prefix }: Config,
  file: Tensors,
  nameInFile: NameInFile = (n) => n,
  states: Record<string, string> = { final_state: 'recurrent' },
): Tensors {
  const key = (name: string) => key_prefix + nameInFile(name);
  layer.buildWith((name, { shape }) => {
    const weight = file[key(name)];
    if (`${widths(weight?.shape)}` !== `${widths(shape)}`)
      throw new Error(`runLayer: ${key(name)} is [${weight?.shape}], not [${shape}]`);
    return weight.dataSync() as Float32Array; // as it was read from the file
  });
  const run = ({ x }: Tensors) => {
    const { y, state } = layer.forward(x);
    return [y, ...Object.values(states).map((name) => state[name])];
  };
  const inputs: Tensors = { ...Object.fromEntries(layer.weightsByName()), x: file.x };
  const finals = Object.keys(states);
  const { outputs, grads } = outputsAndGrads(run, inputs, [file.dy, ...finals.map(() => undefined)]);
  layer.dispose();
  const { x: dx, ...weights } = grads;
  const inFile = (name: string, gradient: tf.Tensor) => gradient.reshape(file[key(name)].shape);
  const named = Object.entries(weights).map(([name, dw]) => [`grad.${key(name)}`, inFile(name, dw)]);
  const ends = finals.map((name, i) => [name, outputs[i + 1]]);
  return { y: outputs[0], ...Object.fromEntries(ends), dx, ...Object.fromEntries(named) };
}

/** A shape but for its axes of length 1, which some checkpoints add. */
const widths = (shape: number[] = []) => shape.filter((n) => n !== 1);

const number = (text: string | undefined) => (text === undefined ? undefined : Number(text));
const flag = (text: string | undefined) => (text === undefined ? undefined : text === 'True');

type GlaOptions = Pick<GatedLinearAttentionOptions, 'hiddenSize'> & Partial<GatedLinearAttentionOptions>;

/** Options of the layer that a file's config describes. */
export const glaLayerOptions = (config: Config, form: GatedLinearAttentionOptions['form']): GlaOptions => ({
  hiddenSize: Number(config.hidden_size),
  expandK: number(config.expand_k),
  expandV: number(config.expand_v),
  numHeads: number(config.num_heads),
  numKvHeads: number(config.num_kv_heads),
  normEps: number(config.norm_eps),
  gateLogitNormalizer: number(config.gate_logit_normalizer),
  clampMin: number(config.clamp_min),
  useShortConv: flag(config.use_short_conv),
  useOutputGate: flag(config.use_output_gate),
  featureMap: config.feature_map as 'relu' | undefined,
  form,
});

type KdaOptions = Pick<KimiDeltaAttentionOptions, 'hiddenSize'> & Partial<KimiDeltaAttentionOptions>;

export const kdaLayerOptions = (config: Config, form: KimiDeltaAttentionOptions['form']): KdaOptions => ({
  hiddenSize: Number(config.hidden_size),
  numHeads: number(config.num_heads),
  numVHeads: number(config.num_v_heads),
  headDim: number(config.head_dim),
  expandV: number(config.expand_v),
  normEps: number(config.norm_eps),
  lowerBound: number(config.lower_bound),
  allowNegEigval: flag(config.allow_neg_eigval),
  useShortConv: flag(config.use_short_conv),
  form,
});

type GkaOptions = Pick<GatedKalmaNetLayerOptions, 'hiddenSize'> & Partial<GatedKalmaNetLayerOptions>;

export const gkaLayerOptions = (config: Config): GkaOptions => ({
  hiddenSize: Number(config.hidden_size),
  headDim: number(config.head_dim),
  numHeads: number(config.num_q_heads),
  numKHeads: number(config.num_k_heads),
  numVHeads: number(config.num_v_heads),
  numIterations: number(config.num_iter),
  ridgeRatio: number(config.ridge_strength),
  normEps: number(config.norm_eps),
});
