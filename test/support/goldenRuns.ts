/**
 * Ops and layers run on the inputs of a golden file; results bear the file's names. Free of vitest, and of `src` but for types: pages
 * in a browser run these with the built package.
 */
import type * as tf from '@tensorflow/tfjs';
import type { GatedLinearAttentionOptions, LayerOutput } from '../../src/layers/index.js';
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

/** What is needed of the layer, be it of `src` or of the package. */
interface Layer {
  buildWith(init: (name: string, spec: { shape: number[] }) => Float32Array): void;
  forward(x: tf.Tensor): LayerOutput;
  weightsByName(): Map<string, tf.Variable>;
  dispose(): unknown;
}

type LayerOptions = Pick<GatedLinearAttentionOptions, 'hiddenSize'> & Partial<GatedLinearAttentionOptions>;

/** y, final state, and the gradients on x and every weight. */
export function runGlaLayer(
  create: (options: LayerOptions) => Layer,
  config: Config,
  file: Tensors,
  form: GatedLinearAttentionOptions['form'],
): Tensors {
  const layer = create(layerOptions(config, form));
  layer.buildWith((name, { shape }) => {
    const weight = file[config.key_prefix + name];
    if (`${weight?.shape}` !== `${shape}`)
      throw new Error(`runGlaLayer: ${name} is [${weight?.shape}], not [${shape}]`);
    return weight.dataSync() as Float32Array; // as it was read from the file
  });
  const run = ({ x }: Tensors) => {
    const { y, state } = layer.forward(x);
    return [y, state.recurrent];
  };
  const inputs: Tensors = { ...Object.fromEntries(layer.weightsByName()), x: file.x };
  const { outputs, grads } = outputsAndGrads(run, inputs, [file.dy, undefined]);
  layer.dispose();
  const { x: dx, ...weights } = grads;
  const named = Object.entries(weights).map(([name, gradient]) => [`grad.${config.key_prefix}${name}`, gradient]);
  return { y: outputs[0], final_state: outputs[1], dx, ...Object.fromEntries(named) };
}

function layerOptions(config: Config, form: GatedLinearAttentionOptions['form']): LayerOptions {
  const number = (name: string) => (config[name] === undefined ? undefined : Number(config[name]));
  const flag = (name: string) => (config[name] === undefined ? undefined : config[name] === 'True');
  return {
    hiddenSize: Number(config.hidden_size),
    expandK: number('expand_k'),
    expandV: number('expand_v'),
    numHeads: number('num_heads'),
    numKvHeads: number('num_kv_heads'),
    normEps: number('norm_eps'),
    gateLogitNormalizer: number('gate_logit_normalizer'),
    clampMin: number('clamp_min'),
    useShortConv: flag('use_short_conv'),
    useOutputGate: flag('use_output_gate'),
    featureMap: config.feature_map as 'relu' | undefined,
    form,
  };
}
