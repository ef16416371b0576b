import { loadRunConfig } from '../config/index.js';
import { train } from '../train/loop.js';
import { interruptible } from './interruptible.js';

/** `seqmix train`. */
export async function runTrain(
  path: string,
  { overrides, resume, fresh }: { overrides: string[]; resume: boolean; fresh: boolean },
): Promise<number> {
  const config = loadRunConfig(path, overrides);
  return interruptible('\nstopping after this step; once more to stop at once', async (signal) => {
    const { status } = await train(config, { resume, fresh, signal });
    if (status === 'interrupted') signal.throwIfAborted();
  });
}
