/** Declares an op whose forward and backward are kernels of ours on the wasm backend, and makes it differentiable. */
import * as tf from '@tensorflow/tfjs';
import { WasmContext } from './runtime.js';

/** Named inputs of a kernel. Those in `Optional` may be absent: undefined, for which `ctx.ptr` gives 0. */
export type Infos<I extends string, Optional extends I = never> = Record<Exclude<I, Optional>, tf.TensorInfo> &
  Partial<Record<Optional, tf.TensorInfo>>;

/**
 * Gradients of `sum(outputs * dys)`. `inputs` are the op's inputs and `outputs` its saved outputs (all of them when `saveOutputs`,
 * else none).
 */
type Backward<I extends string, A, Optional extends I, Result> = (
  ctx: WasmContext,
  dys: tf.TensorInfo[],
  inputs: Infos<I, Optional>,
  outputs: tf.TensorInfo[],
  attrs: A,
) => Result;

export interface FusedOpSpec<I extends string, A, Optional extends I = never> {
  /** Kernel name; `Seqmix` is put before it, and `Grad` after it for the backward kernel. */
  name: string;
  inputs: readonly I[];
  /**
   * Writes and returns the outputs. Where `taped` is false no gradient can be asked for: what is for the backward pass alone may be left
   * out at the end of the list, and the outputs before it are the same to the last bit.
   */
  forward(ctx: WasmContext, inputs: Infos<I, Optional>, attrs: A, taped: boolean): tf.TensorInfo[];
  /**
   * Either one kernel for the gradients of every differentiable input that was given (one that was not given needs none: leave it out or
   * undefined), or a kernel for each input, which runs only where that gradient is asked for: not for frozen weights, nor for data.
   */
  backward?:
    | Backward<I, A, Optional, Partial<Infos<I>>>
    | { readonly [Name in I]?: Backward<I, A, Optional, tf.TensorInfo> };
  /** Keep the outputs for the backward pass; default false. */
  saveOutputs?: boolean;
}

/** A function that runs the kernel; it registers itself with TensorFlow.js at its first call, so importing has no side effect. */
export type FusedOp<I extends string, A> = (inputs: Partial<Record<I, tf.Tensor>>, attrs: A) => tf.Tensor[];

export function fusedOp<I extends string, A extends object, Optional extends I = never>(
  spec: FusedOpSpec<I, A, Optional>,
): FusedOp<I, A> {
  const kernelName = `Seqmix${spec.name}`;
  let registered = false;
  return (inputs, attrs) => {
    if (!registered && !tf.getKernel(kernelName, 'wasm')) register(kernelName, spec as unknown as FusedOpSpec<I, A>);
    registered = true;
    const given = spec.inputs.filter((name) => inputs[name]);
    const tensors = given.map((name) => inputs[name] as tf.Tensor);
    const taped = tf.engine().isTapeOn(); // asked before the kernel runs: inside it, and inside a customGrad, the tape is off
    return run(kernelName, tensors, { given, call: attrs, taped } satisfies Call<I, A>);
  };
}

/** What a forward kernel gets as attributes: its tensors come as a list, so that TensorFlow.js saves them all. */
interface Call<I extends string, A> {
  /** Names of the inputs, in the order of the list. */
  given: I[];
  call: A;
  taped?: boolean;
}

/** What a backward kernel gets: its tensors are dys, inputs, saved outputs. */
interface GradCall<I extends string, A> extends Call<I, A> {
  dys: number;
  /** The kernel puts the names of the gradients it returns here. */
  made: I[];
}

function run(kernelName: string, tensors: tf.Tensor[], attrs: object): tf.Tensor[] {
  const inputs = tensors as unknown as tf.NamedTensorMap;
  const result = tf.engine().runKernel(kernelName, inputs, attrs as tf.NamedAttrMap) as tf.Tensor | tf.Tensor[];
  return Array.isArray(result) ? result : [result];
}

function register<I extends string, A extends object>(kernelName: string, spec: FusedOpSpec<I, A>): void {
  tf.registerKernel({
    kernelName,
    backendName: 'wasm',
    kernelFunc: ({ inputs, backend, attrs }) => {
      const { given, call, taped = true } = attrs as unknown as Call<I, A>;
      return spec.forward(WasmContext.of(backend), named(given, inputs as unknown as tf.TensorInfo[]), call, taped);
    },
  });
  const { backward } = spec;
  if (!backward) return;
  for (const [name, part] of Object.entries(kernelsOf(kernelName, backward))) registerBackward(name, part);
  if (tf.getGradient(kernelName)) return;
  tf.registerGradient({
    kernelName,
    saveAllInputs: true,
    outputsToSave: Array(32).fill(spec.saveOutputs === true),
    gradFunc: (dy, saved, attrs) => {
      const { given, call } = attrs as unknown as Call<I, A>;
      const dys = (Array.isArray(dy) ? dy : [dy]) as tf.Tensor[];
      const gradients = (kernel: string): Partial<Record<I, tf.Tensor>> => {
        const made: I[] = [];
        const list = run(kernel, [...dys, ...saved], { given, call, dys: dys.length, made } satisfies GradCall<I, A>);
        return Object.fromEntries(made.map((name, i) => [name, list[i]])) as Record<I, tf.Tensor>;
      };
      const all = typeof backward === 'function' ? gradients(gradName(kernelName)) : undefined;
      const thunks = given.flatMap((name, i): [number, () => tf.Tensor][] => {
        const of = () => (all ?? gradients(gradName(kernelName, name)))[name] as tf.Tensor;
        return name in (all ?? backward) ? [[i, of]] : [];
      });
      return Object.fromEntries(thunks);
    },
  });
}

const gradName = (kernelName: string, input?: string) => `${kernelName}Grad${input ? `.${input}` : ''}`;

type OneForAll<I extends string, A> = Backward<I, A, never, Partial<Infos<I>>>;

/** Each backward kernel by its name. */
function kernelsOf<I extends string, A>(
  kernelName: string,
  backward: NonNullable<FusedOpSpec<I, A>['backward']>,
): Record<string, OneForAll<I, A>> {
  if (typeof backward === 'function') return { [gradName(kernelName)]: backward };
  const parts = Object.entries(backward) as [I, Backward<I, A, never, tf.TensorInfo>][];
  return Object.fromEntries(
    parts.map(([name, part]) => [
      gradName(kernelName, name),
      (...args) => ({ [name]: part(...args) }) as Partial<Infos<I>>,
    ]),
  );
}

function registerBackward<I extends string, A>(kernelName: string, backward: OneForAll<I, A>): void {
  tf.registerKernel({
    kernelName,
    backendName: 'wasm',
    kernelFunc: ({ inputs, backend, attrs }) => {
      const { call, given, dys, made } = attrs as unknown as GradCall<I, A>;
      const list = inputs as unknown as tf.TensorInfo[];
      const outputs = list.slice(dys + given.length);
      const gradients = backward(
        WasmContext.of(backend),
        list.slice(0, dys),
        named(given, list.slice(dys)),
        outputs,
        call,
      );
      for (const [name, gradient] of Object.entries(gradients) as [I, tf.TensorInfo | undefined][]) {
        if (gradient && !given.includes(name))
          throw new Error(`${kernelName}: made a gradient for "${name}", an absent input`);
        if (gradient) made.push(name);
      }
      return made.map((name) => gradients[name] as tf.TensorInfo);
    },
  });
}

function named<I extends string>(names: readonly I[], tensors: readonly tf.TensorInfo[]): Infos<I> {
  const infos: Record<string, tf.TensorInfo> = {}; // a loop: every call of every op comes by here
  for (let i = 0; i < names.length; i++) infos[names[i]] = tensors[i];
  return infos as Infos<I>;
}
