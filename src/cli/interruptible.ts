/**
 * Runs `body` so that Ctrl-C (or SIGTERM) aborts its signal; a second one ends the process at once.
 * @param notice what the first one prints on stderr; nothing when empty
 * @returns the exit code: 0, or 130 when `body` ended by the signal
 */
export async function interruptible(notice: string, body: (signal: AbortSignal) => Promise<void>): Promise<0 | 130> {
  const stop = new AbortController();
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
    if (notice) console.error(notice);
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    await body(stop.signal);
    return 0;
  } catch (error) {
    if (!stop.signal.aborted || error !== stop.signal.reason) throw error;
    return 130;
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}
