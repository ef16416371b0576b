/** The profile of a training run: some steps after the warm-up, measured in every kernel. Node only. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { checkPositiveInt } from '../chunked/check.js';
import { formatProfile, profileRows, Recorder, traceJson } from '../profile/index.js';
import type { Phase } from './step.js';

export interface ProfileOptions {
  /** Where the trace is written; default `profile.json` in the folder of the run. */
  file?: string;
  /** Steps measured; default 10. */
  steps?: number;
}

/** Steps before the first measured one: kernels register themselves, the engine compiles them, the memory grows to its size. */
const WARM_UP = 3;

/** Measures the steps it is told of; outside of its window it costs one comparison per call. */
export class StepProfiler {
  readonly #recorder = new Recorder();
  readonly #steps: number;
  readonly #file: string;
  #seen = 0;

  /** @throws RangeError unless `steps` is a positive integer */
  constructor(file: string, { steps = 10 }: ProfileOptions = {}) {
    checkPositiveInt('train', 'profile steps', steps);
    [this.#file, this.#steps] = [file, steps];
  }

  /** To be called before each step with its number. */
  begin(step: number): void {
    this.#seen += 1;
    if (this.#seen === WARM_UP + 1) this.#recorder.install();
    if (!this.#measures) return;
    this.#recorder.beginStep(`step ${step}`);
    this.#recorder.phase('data');
  }

  readonly phase = (phase: Phase): void => this.#recorder.phase(phase);

  /** To be called after each step. @returns the report after the last measured one */
  end(): string | undefined {
    if (!this.#measures) return undefined;
    this.#recorder.endStep();
    return this.#seen === WARM_UP + this.#steps ? this.#report() : undefined;
  }

  /** Takes its hands off the kernels, also when a step has thrown. */
  stop(): void {
    this.#recorder.uninstall();
  }

  get #measures(): boolean {
    return this.#seen > WARM_UP && this.#seen <= WARM_UP + this.#steps;
  }

  #report(): string {
    this.stop();
    const { spans } = this.#recorder;
    mkdirSync(dirname(this.#file), { recursive: true });
    writeFileSync(this.#file, traceJson(spans));
    const steps = spans.filter(({ kind }) => kind === 'step').map(({ name }) => name);
    const title = `profile of ${steps.length} steps, ${steps[0]} to ${steps.at(-1)}, on ${tf.getBackend()}; trace: ${this.#file} (ui.perfetto.dev)`;
    return `\n${formatProfile(profileRows(spans), title)}\n`;
  }
}
