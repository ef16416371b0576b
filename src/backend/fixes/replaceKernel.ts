/**
 * How a fix stands in for a stock kernel or gradient. The stock one is kept on its replacement, under a symbol of ours, so that the
 * registry itself says what is installed, a second install changes nothing, and a fix can hand the cases that are right back to it.
 */
import * as tf from '@tensorflow/tfjs';

/** One defect of TensorFlow.js 4.22.0 and its remedy. */
export interface Fix {
  /** Short name, as `doctor` prints it. */
  name: string;
  /** What the stock library does wrong. */
  defect: string;
  /** The backend whose kernels are replaced; `any` when it is a gradient, which all backends share. */
  backend: 'any' | 'wasm';
  install(): void;
  installed(): boolean;
}

const STOCK = Symbol.for('seqmix.stock');
type Kept<C> = C & { [STOCK]?: C | null };

/** The stock config below ours; `null` where the stock library has none, `undefined` while ours is not installed. */
export function stockKernel(kernelName: string, backendName: string): tf.KernelConfig | null | undefined {
  return (tf.getKernel(kernelName, backendName) as Kept<tf.KernelConfig> | undefined)?.[STOCK];
}

export function stockGradient(kernelName: string): tf.GradConfig | null | undefined {
  return (tf.getGradient(kernelName) as Kept<tf.GradConfig> | undefined)?.[STOCK];
}

/** Replaces a kernel; `kernelFunc` is given the stock function (undefined where there is none). Does nothing a second time. */
export function replaceKernel(
  kernelName: string,
  backendName: string,
  kernelFunc: (stock: tf.KernelFunc | undefined) => tf.KernelFunc,
): void {
  if (stockKernel(kernelName, backendName) !== undefined) return;
  const stock = tf.getKernel(kernelName, backendName);
  if (stock) tf.unregisterKernel(kernelName, backendName);
  // The stock set-up stays: TensorFlow.js runs it for each new instance of the backend, and the stock function needs it.
  const { setupFunc, disposeFunc } = stock ?? {};
  const ours: Kept<tf.KernelConfig> = {
    kernelName,
    backendName,
    setupFunc,
    disposeFunc,
    kernelFunc: kernelFunc(stock?.kernelFunc),
    [STOCK]: stock ?? null,
  };
  tf.registerKernel(ours);
}

/** Replaces a gradient. Does nothing a second time. */
export function replaceGradient(config: tf.GradConfig): void {
  if (stockGradient(config.kernelName) !== undefined) return;
  const stock = tf.getGradient(config.kernelName) ?? null;
  if (stock) tf.unregisterGradient(config.kernelName);
  tf.registerGradient({ ...config, [STOCK]: stock } as Kept<tf.GradConfig>);
}
