/** Mixers that read the time between steps (`ForwardOptions.intervals`). */
export const TIMED_MIXERS: readonly string[] = ['s5'];
