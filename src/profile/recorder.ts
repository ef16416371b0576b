/** Records what runs: every kernel of the active backend, by wrapping it, within the phases that the caller marks. */
import * as tf from '@tensorflow/tfjs';
import { installedKernels } from '../chunked/wasm/runtime.js';

/** A stretch of time; spans lie within one another, or apart. */
export interface Span {
  name: string;
  kind: 'step' | 'phase' | 'kernel';
  /** Name of the phase around it, its own for a phase; empty for a step. */
  phase: string;
  /** performance.now() at its begin, in ms. */
  start: number;
  /** ms, everything inside counted. */
  duration: number;
  /** ms, without the spans inside. */
  self: number;
  /** Bytes of the new tensors that a kernel gave back; those that share the memory of an input count 0. */
  bytes: number;
}

/**
 * While installed, every kernel of the active backend is timed at each call, and so is each of our WebAssembly functions that is called
 * outside of them (AdamW). Uninstalled, the kernels are the very functions they were before.
 * On webgpu a kernel's time is that of its dispatch: the GPU works on later.
 */
export class Recorder {
  /** In the order of their ends: a span comes after those inside it. */
  readonly spans: Span[] = [];
  readonly #open: Span[] = [];
  readonly #restore: (() => void)[] = [];

  /** @throws Error when already installed */
  install(): void {
    if (this.#restore.length) throw new Error('Recorder.install: is installed already; uninstall it first');
    for (const config of tf.getKernelsForBackend(tf.getBackend())) {
      const original = config.kernelFunc;
      config.kernelFunc = this.#timedKernel(config.kernelName, original);
      this.#restore.push(() => {
        config.kernelFunc = original;
      });
    }
    const ours = installedKernels() ?? {};
    for (const [name, original] of Object.entries(ours)) {
      ours[name] = (...args) => (this.#inKernel ? original(...args) : this.#timed(name, () => original(...args)));
      this.#restore.push(() => {
        ours[name] = original;
      });
    }
  }

  uninstall(): void {
    for (const restore of this.#restore.splice(0)) restore();
  }

  /** Begins a step, in which phases follow one another. */
  beginStep(name: string): void {
    this.endStep();
    this.#begin(name, 'step');
  }

  endStep(): void {
    while (this.#open.length) this.#end();
  }

  /** Ends the phase at hand, if any, and begins the next. Outside of a step it does nothing. */
  phase(name: string): void {
    if (this.#open.length > 1) this.#end();
    if (this.#open.length) this.#begin(name, 'phase');
  }

  get #inKernel(): boolean {
    return this.#open[this.#open.length - 1]?.kind === 'kernel';
  }

  #timedKernel(name: string, kernelFunc: tf.KernelFunc): tf.KernelFunc {
    return (params) =>
      this.#timed(
        name,
        () => kernelFunc(params),
        (outputs) => newBytes(outputs, params.inputs),
      );
  }

  #timed<R>(name: string, body: () => R, bytes: (result: R) => number = () => 0): R {
    if (!this.#open.length) return body();
    const span = this.#begin(name, 'kernel');
    try {
      const result = body();
      span.bytes = bytes(result);
      return result;
    } finally {
      this.#end();
    }
  }

  #begin(name: string, kind: Span['kind']): Span {
    const phase = kind === 'phase' ? name : (this.#open[this.#open.length - 1]?.phase ?? '');
    const span = { name, kind, phase, start: performance.now(), duration: 0, self: 0, bytes: 0 };
    this.#open.push(span);
    return span;
  }

  #end(): void {
    const span = this.#open.pop() as Span;
    span.duration = performance.now() - span.start;
    span.self += span.duration;
    const outer = this.#open[this.#open.length - 1];
    if (outer) outer.self -= span.duration;
    this.spans.push(span);
  }
}

function newBytes(outputs: tf.TensorInfo | tf.TensorInfo[], inputs: tf.NamedTensorInfoMap): number {
  const given = new Set(Object.values(inputs).map((x) => x?.dataId));
  const made = (Array.isArray(outputs) ? outputs : [outputs]).filter(({ dataId }) => !given.has(dataId));
  return made.reduce((sum, { shape, dtype }) => sum + tf.util.sizeFromShape(shape) * tf.util.bytesPerElement(dtype), 0);
}
