/** What a person sees during a run: one line per logged step, and on a terminal a bar below it that moves every step. */
import { MultiBar, Presets } from 'cli-progress';

export interface StepReport {
  /** Updates done, of `steps`. */
  step: number;
  steps: number;
  /** Loss and, of text, bits per byte of this step's batch. */
  loss: number;
  bpb?: number;
  /** Of a generated task or a classifier: share of the targets that were the likeliest. */
  accuracy?: number;
  learningRate: number;
  gradNorm: number;
  /** Load of the busiest expert over the mean load; undefined without experts. */
  expertLoad?: number;
  /** Tokens or sequences trained on per second since the last report. */
  unitsPerSecond: number;
  unit: 'tokens' | 'sequences';
  /** Resident memory of this process, bytes. */
  memoryBytes: number;
  /** Seconds left at the present pace. */
  etaSeconds: number;
}

/** `step 120/2000  loss 1.2340  bpb 1.780  lr 3.00e-3  |g| 0.53  4,210 tok/s  312 MB  ETA 2m10s` */
export function formatStep(r: StepReport): string {
  const width = String(r.steps).length;
  return [
    `step ${String(r.step).padStart(width)}/${r.steps}`,
    `loss ${r.loss.toFixed(4)}`,
    ...(r.bpb === undefined ? [] : [`bpb ${r.bpb.toFixed(3)}`]),
    ...(r.accuracy === undefined ? [] : [`accuracy ${r.accuracy.toFixed(4)}`]),
    `lr ${r.learningRate.toExponential(2)}`,
    `|g| ${r.gradNorm.toFixed(2)}`,
    ...(r.expertLoad === undefined ? [] : [`load ${r.expertLoad.toFixed(2)}`]),
    `${Math.round(r.unitsPerSecond).toLocaleString('en')} ${r.unit === 'tokens' ? 'tok' : 'seq'}/s`,
    formatBytes(r.memoryBytes),
    `ETA ${formatDuration(r.etaSeconds)}`,
  ].join('  ');
}

export function formatBytes(bytes: number): string {
  if (bytes < 1e3) return `${bytes} B`;
  const [unit, size] = bytes < 1e6 ? ['kB', 1e3] : bytes < 1e9 ? ['MB', 1e6] : ['GB', 1e9];
  const value = bytes / size;
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
}

/** `45s`, `2m10s`, `1h05m`. */
export function formatDuration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${String(s % 60).padStart(2, '0')}s`;
  return `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, '0')}m`;
}

/** How fast a run goes: tokens or sequences per second of training alone, and the time left with everything else in it. */
export class Pace {
  readonly #start = performance.now();
  #lapStart = this.#start;
  #lapStep: number;

  constructor(
    readonly startStep: number,
    readonly steps: number,
    readonly unitsPerStep: number,
  ) {
    this.#lapStep = startStep;
  }

  /** Figures since the last call. */
  lap(step: number): { unitsPerSecond: number; etaSeconds: number } {
    const now = performance.now();
    const unitsPerSecond = ((step - this.#lapStep) * this.unitsPerStep) / ((now - this.#lapStart) / 1e3);
    [this.#lapStart, this.#lapStep] = [now, step];
    const perStep = (now - this.#start) / (step - this.startStep);
    return { unitsPerSecond, etaSeconds: (perStep * (this.steps - step)) / 1e3 };
  }

  /** Runs what is no training: it does not count in the speed. */
  async pause(body: () => Promise<void>): Promise<void> {
    const begin = performance.now();
    await body();
    this.#lapStart += performance.now() - begin;
  }
}

/** Where the loop reports to. `line` prints above the bar; `tick` moves it. */
export interface Progress {
  line(text: string): void;
  tick(report: { step: number; loss: number }): void;
  stop(): void;
}

/** A bar on a terminal, plain lines elsewhere (files, pipes, CI). */
export function createProgress(
  steps: number,
  startStep: number,
  stream: NodeJS.WriteStream = process.stdout,
): Progress {
  if (!stream.isTTY) return { line: (text) => void stream.write(`${text}\n`), tick: () => {}, stop: () => {} };
  const bars = new MultiBar(
    {
      format: '{bar} {percentage}%  step {value}/{total}  loss {loss}  ETA {eta_formatted}',
      ...{ stream, hideCursor: true, clearOnComplete: true, gracefulExit: false },
      linewrap: true, // the lines above the bar are ours, and some are long
    },
    Presets.shades_classic,
  );
  const bar = bars.create(steps, startStep, { loss: '-' });
  let running = true;
  return {
    line: (text) => {
      if (!running) return void stream.write(`${text}\n`);
      bars.log(`${text}\n`);
      bars.update();
    },
    tick: ({ step, loss }) => bar.update(step, { loss: loss.toFixed(4) }),
    stop: () => {
      if (running) bars.stop();
      running = false;
    },
  };
}
