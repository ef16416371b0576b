/** Declares an op whose forward and backward are kernels of ours on the wasm backend, and makes it differentiable. */
import * as tf from '@tensorflow/tfjs';
import { WasmContext } from './runtime.js';

/** Named inputs of a kernel. Optional ones that are absent arrive as an empty tensor (`ctx.ptr` gives 0). */
export type Infos<I extends string> = Record<I, tf.TensorInfo>;

export interface FusedOpSpec<I extends string, A> {
  /** Kernel name; `Seqmix` is put before it, and `Grad` after it for the backward kernel. */
  name: string;
  inputs: readonly I[];
  /** Writes and returns the outputs. */
  forward(ctx: WasmContext, inputs: Infos<I>, attrs: A): tf.TensorInfo[];
  /**
   * Gradients of `sum(outputs * dys)` for every differentiable input that was given. `inputs` are the op's inputs and `outputs`
   * its saved outputs (all of them when `saveOutputs`, else none). An input that was not given needs none (`ctx.ptr` is 0): leave it
   * out or undefined.
   */
  backward?(
    ctx: WasmContext,
    dys: tf.TensorInfo[],
    inputs: Infos<I>,
    outputs: tf.TensorInfo[],
    attrs: A,
  ): Partial<Infos<I>>;
  /** Keep the outputs for the backward pass; default false. */
  saveOutputs?: boolean;
}

/** A function that runs the kernel; it registers itself with TensorFlow.js at its first call, so importing has no side effect. */
export type FusedOp<I extends string, A> = (inputs: Partial<Record<I, tf.Tensor>>, attrs: A) => tf.Tensor[];

export function fusedOp<I extends string, A extends object>(spec: FusedOpSpec<I, A>): FusedOp<I, A> {
  const kernelName = `Seqmix${spec.name}`;
  return (inputs, attrs) => {
    if (!tf.getKernel(kernelName, 'wasm')) register(kernelName, spec);
    return tf.tidy(() => {
      const all: Record<string, tf.Tensor> = {};
      for (const name of spec.inputs) all[name] = inputs[name] ?? tf.tensor1d([], 'float32');
      const result = tf.engine().runKernel(kernelName, all, attrs as tf.NamedAttrMap) as tf.Tensor | tf.Tensor[];
      return Array.isArray(result) ? result : [result];
    });
  };
}

function register<I extends string, A extends object>(kernelName: string, spec: FusedOpSpec<I, A>): void {
  tf.registerKernel({
    kernelName,
    backendName: 'wasm',
    kernelFunc: ({ inputs, backend, attrs }) =>
      spec.forward(WasmContext.of(backend), inputs as unknown as Infos<I>, attrs as unknown as A),
  });
  if (!spec.backward) return;
  const backward = spec.backward;
  tf.registerKernel({
    kernelName: `${kernelName}Grad`,
    backendName: 'wasm',
    kernelFunc: ({ inputs, backend, attrs }) => {
      const { call, given, sink } = attrs as unknown as GradCall<I, A>;
      const gradients = backward(WasmContext.of(backend), ...unpackGrad<I>(inputs), call);
      const names = given.filter((name) => gradients[name]);
      if (names.length !== Object.values(gradients).filter(Boolean).length)
        throw new Error(`${kernelName}Grad: made a gradient for an absent input`);
      sink.push(...names);
      return names.map((name) => gradients[name] as tf.TensorInfo);
    },
  });
  if (tf.getGradient(kernelName)) return;
  tf.registerGradient({
    kernelName,
    inputsToSave: [...spec.inputs],
    outputsToSave: Array(32).fill(spec.saveOutputs === true),
    gradFunc: (dy, saved, attrs) => {
      const dys = (Array.isArray(dy) ? dy : [dy]) as tf.Tensor[];
      const given = spec.inputs.filter((_, i) => saved[i].size > 0);
      const packed: Record<string, tf.Tensor> = {};
      for (const [i, d] of dys.entries()) packed[`dy${i}`] = d;
      for (const [i, s] of saved.entries())
        packed[i < spec.inputs.length ? spec.inputs[i] : `out${i - spec.inputs.length}`] = s;
      const sink: I[] = [];
      const call = { call: attrs, given, sink } as unknown as tf.NamedAttrMap;
      const result = tf.engine().runKernel(`${kernelName}Grad`, packed, call) as tf.Tensor | tf.Tensor[];
      const list = Array.isArray(result) ? result : [result];
      return Object.fromEntries(sink.map((name, i) => [name, () => list[i]]));
    },
  });
}

interface GradCall<I extends string, A> {
  call: A;
  given: I[];
  sink: I[];
}

function unpackGrad<I extends string>(packed: tf.NamedTensorInfoMap) {
  const numbered = (prefix: string) => {
    const list: tf.TensorInfo[] = [];
    for (let info = packed[`${prefix}0`]; info; info = packed[`${prefix}${list.length}`]) list.push(info);
    return list;
  };
  return [numbered('dy'), packed as unknown as Infos<I>, numbered('out')] as const;
}
