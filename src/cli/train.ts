import { loadRunConfig } from '../config/index.js';
import { train } from '../train/loop.js';

/** `seqmix train`. */
export async function runTrain(path: string, { overrides, resume, fresh }: { overrides: string[]; resume: boolean; fresh: boolean }): Promise<number> {
  if (resume && fresh) throw new Error('train: --resume and --fresh exclude one another');
  const config = await loadRunConfig(path, overrides);
  const stop = new AbortController();
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
    console.error('\nstopping after this step; once more to stop at once');
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    const { status } = await train(config, { resume, fresh, signal: stop.signal });
    return status === 'interrupted' ? 130 : 0;
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}
