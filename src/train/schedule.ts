/** Learning-rate schedules: a pure function of the step, so that a resumed run needs no schedule state. */

export interface ScheduleOptions {
  /** Shape after the warm-up: cosine decay, warm-up-stable-decay (WSD), or constant. */
  schedule: 'cosine' | 'wsd' | 'constant';
  /** Peak learning rate. */
  lr: number;
  /** Final learning rate as a share of `lr`; ignored by `constant`. */
  minLrRatio: number;
  /** Steps of linear warm-up from lr / warmupSteps to lr. */
  warmupSteps: number;
  /** Steps of the final decay; `wsd` only. */
  decaySteps?: number;
  /**
   * Share of `steps` after which the rate is half of what `schedule` gives, to the end; not before the end of the warm-up. Default: never.
   * With `cosine` the schedule of MatMul-free models (https://arxiv.org/abs/2406.02528, Sec. 3.4), whose share is 0.5.
   */
  halveAt?: number;
  /** Steps of the whole run. */
  steps: number;
}

/**
 * Learning rate of the update with index `step` (0-based).
 * Cosine: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983 eq. 5, one cycle. WSD: Hu et al. 2024,
 * https://arxiv.org/abs/2404.06395 sec. 4, with a linear decay to `minLrRatio * lr`.
 */
export function learningRate(step: number, options: ScheduleOptions): number {
  const { halveAt, steps } = options;
  const isHalved = halveAt !== undefined && step >= halveAt * steps;
  return isHalved ? scheduled(step, options) / 2 : scheduled(step, options);
}

function scheduled(step: number, options: ScheduleOptions): number {
  const { schedule, lr, minLrRatio, warmupSteps, steps, decaySteps = 0 } = options;
  if (step < warmupSteps) return (lr * (step + 1)) / warmupSteps;
  if (schedule === 'constant') return lr;
  const decayStart = schedule === 'cosine' ? warmupSteps : steps - decaySteps;
  const span = Math.max(1, steps - 1 - decayStart);
  const progress = Math.min(1, Math.max(0, (step - decayStart) / span));
  const shape = schedule === 'cosine' ? 0.5 * (1 + Math.cos(Math.PI * progress)) : 1 - progress;
  return lr * (minLrRatio + (1 - minLrRatio) * shape);
}
