import { loadRunConfig } from '../config/index.js';
import { train } from '../train/loop.js';
import { interruptible } from './interruptible.js';

export interface TrainFlags {
  overrides: string[];
  resume: boolean;
  fresh: boolean;
  /** File of the trace; true for the default. */
  profile?: string | true;
  profileSteps?: number;
}

/** `seqmix train`. */
export async function runTrain(
  path: string,
  { overrides, resume, fresh, profile, profileSteps: steps }: TrainFlags,
): Promise<number> {
  const config = loadRunConfig(path, overrides);
  return interruptible('\nstopping after this step; once more to stop at once', async (signal) => {
    const { status } = await train(config, {
      ...{ resume, fresh, signal },
      ...(profile && { profile: { steps, file: profile === true ? undefined : profile } }),
    });
    if (status === 'interrupted') signal.throwIfAborted();
  });
}
