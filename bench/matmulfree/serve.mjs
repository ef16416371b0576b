/** The other end of `inScript`: prepares once, then runs once for every request. */
import { readFileSync } from 'node:fs';

/** @param prepare (params) => { run, outputs? }: what is timed, and numbers that contestants of the same work agree in */
export function serve(prepare) {
  let run;
  const answer = async ({ kind, params }) => {
    if (kind === 'prepare') {
      const prepared = await prepare(params);
      run = prepared.run;
      return { ms: 0, outputs: prepared.outputs, ...prepared.ran };
    }
    const start = performance.now();
    const value = await run();
    return { ms: performance.now() - start, value, memoryBytes: peakBytes() };
  };
  process.on('message', (request) => {
    answer(request).then(
      (result) => process.send(result),
      (error) => process.send({ ms: 0, error: error.message }),
    );
  });
}

/** The most memory this process has held. `resourceUsage` would count what its parent held when it was forked. */
function peakBytes() {
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return 1024 * Number(kilobytes);
}
