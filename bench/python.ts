/** A contestant in Python: `bench/python/<file>` in a process of its own, asked over stdin and answering over stdout, a line each. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { environment } from './environment.js';
import { type Answer, type Contestant, hear, PATIENCE_MS, type Told, warmUp } from './harness.js';

/** The interpreter that has PyTorch; the distribution's packages are there only for its own. */
export const PYTHON = process.env.SEQMIX_BENCH_PYTHON ?? '/usr/bin/python3';
/** Waiting threads sleep: where anything else runs on the machine, threads that spin cost PyTorch up to tenfold (measured). */
const WANTED = { OMP_WAIT_POLICY: 'PASSIVE', GOMP_SPINCOUNT: '0' };

export function inPython(name: string, file: string, params: object): Contestant {
  let child: ChildProcessWithoutNullStreams | undefined;
  let lines: Interface | undefined;
  const told: Told = { values: [], memoryBytes: 0 };
  let complaint = '';
  const ask = (message: object) =>
    new Promise<Answer>((resolve, reject) => {
      const [process_, reader] = [child, lines] as [ChildProcessWithoutNullStreams, Interface];
      const timer = setTimeout(() => done(new Error(`took more than ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
      const onLine = (line: string) => {
        const answer = JSON.parse(line) as Answer;
        done(answer.error ? new Error(answer.error) : answer);
      };
      const onError = (error: Error) => done(new Error(`${PYTHON} cannot be started (${error.message})`));
      const onClose = (code: number | null) =>
        done(new Error(`its process ended (exit code ${code}) ${complaint.trim()}`));
      const done = (outcome: Answer | Error) => {
        clearTimeout(timer);
        reader.off('line', onLine);
        process_.off('close', onClose).off('error', onError);
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      };
      reader.on('line', onLine);
      process_.on('close', onClose).on('error', onError);
      process_.stdin.write(`${JSON.stringify(message)}\n`);
    });
  const time = async () => hear(told, await ask({ kind: 'time' }));
  return {
    name,
    told,
    async ready() {
      child = spawn(PYTHON, [fileURLToPath(new URL(`./python/${file}`, import.meta.url))], {
        env: { ...environment(), ...WANTED },
      });
      child.stdin.on('error', () => undefined); // a process that died is reported by its exit
      child.stderr.on('data', (text) => {
        complaint = `${complaint}${text}`.slice(-2000);
      });
      lines = createInterface({ input: child.stdout });
      await ask({ kind: 'prepare', params });
      await warmUp(time);
    },
    time,
    close() {
      child?.kill('SIGKILL');
      child = undefined;
    },
  };
}

/** Such as `PyTorch 1.13.0 on Python 3.11.2`, or that there is none. */
export function pythonVersion(): string {
  const script = "import platform, torch; print('PyTorch', torch.__version__, 'on Python', platform.python_version())";
  const { status, stdout } = spawnSync(PYTHON, ['-c', script], { encoding: 'utf8', env: environment() });
  return status === 0 ? stdout.trim() : `no PyTorch (${PYTHON})`;
}
