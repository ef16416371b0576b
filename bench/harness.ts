/**
 * Timing ours against named peers in one run. Each contestant lives in a process of its own, so that one's kernels, memory and
 * compiled code cannot touch another's; they take turns, repetition by repetition, so that all meet the same weather on the machine.
 */
import { fork, spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { environment } from './environment.js';
import { median, range } from './statistics.js';

export type Pass = 'fwd' | 'fwdbwd';

/** What a task is made for. */
export interface Params {
  T: number;
  pass: Pass;
  /** A file that gives every contestant of a case the same numbers to start from. */
  handover?: string;
}

/** One thing to time, run in a process of its own (`bench/worker.ts`). */
export interface Task {
  /** `ours`: after `useBackend('wasm')`; `stock`: `tf.setBackend('wasm')` and nothing of ours on it; `own`: as `prepare` sees fit. */
  setup: 'ours' | 'stock' | 'own';
  /** Environment variables of its process. */
  env?: Record<string, string>;
  /** A single repetition that takes longer is given up; default `PATIENCE_MS`. */
  patienceMs?: number;
  /** Before it is timed; default `WARM_UP`. */
  warmUp?: { ms: number; calls: number };
  /** Makes the inputs; the function given back is what is timed. */
  prepare(params: Params): Run | Promise<Run>;
  /** Why it cannot run for these parameters (it would not fit into memory, say). */
  refusal?(params: Params): string | undefined;
}

/** Runs once and leaves no tensors. A number given back is what contestants that do the same work agree in. */
export type Run = () => number | undefined | Promise<number>;

export interface Suite {
  name: string;
  /** Files given to vitest; nothing is measured while one of them is red. */
  tests: string[];
  tasks: Record<string, Task>;
  run(context: Context): Promise<void>;
}

/** What a suite is given: the options of the command line, and where its rows go. */
export interface Context {
  suite: Suite;
  lengths: number[] | undefined;
  reps: number;
  passes: Pass[];
  emit(row: Row): void;
}

/** One line of output. `ratio` is peerMs / ms: above 1, ours is faster. */
export interface Row {
  suite: string;
  case: string;
  backend: string;
  build: string;
  /** The library that multiplied matrices instead of our kernels; `off` where they did. */
  native: string;
  cpu: string;
  cores: number;
  node: string;
  pass?: Pass;
  T?: number;
  reps?: number;
  /** Median of ours in milliseconds. */
  ms?: number;
  peer?: string;
  peerMs?: number;
  ratio?: number;
  /** Fastest and slowest repetition of both, in milliseconds. */
  spread?: { ms: [number, number]; peerMs: [number, number] };
  /** Why there is no figure. */
  skipped?: string;
  /** Facts of a row that is no comparison: an exponent, a share of the machine's limit. */
  [fact: string]: unknown;
}

/** Times one contestant: `ready` warms it up, `time` runs once and gives milliseconds. */
export interface Contestant {
  name: string;
  /** What it told beside its timings. */
  readonly told: Told;
  ready(): Promise<void>;
  time(): Promise<number>;
  close(): void;
}

export interface Told {
  /** The number each run gave back, in order, warm-up and all. */
  values: number[];
  /** The most memory its process held, bytes. */
  memoryBytes: number;
  /** Numbers that came with the preparation. */
  outputs?: number[];
  /** Of ours: the build of the kernels, and the library that multiplied matrices or `off`. */
  ran?: Pick<Row, 'build' | 'native'>;
}

/** A warm-up ends when this much time has passed and the task has run often enough for V8 to have compiled it well. */
const WARM_UP = { ms: 600, calls: 4 };
/** A single repetition that takes longer than this is given up. */
export const PATIENCE_MS = 60_000;
/** A contestant that has taken this long in all sits the other repetitions out: a second for each, so that more repetitions are more of all. */
const budgetMs = (reps: number) => Math.max(15_000, 1000 * reps);

/** Warm-up by any clock: runs until both bounds are met, but not again after one very long call. */
export async function warmUp(run: () => Promise<number>, { ms, calls } = WARM_UP): Promise<void> {
  let total = 0;
  for (let i = 0; i < calls || total < ms; i++) {
    const took = await run();
    total += took;
    if (took > 10 * ms) return;
  }
}

/** Repetitions in turns: one of each, then the next. A contestant that fails is left out from then on, with the reason. */
export async function takeTurns(contestants: Contestant[], reps: number): Promise<Map<string, Result>> {
  const results = new Map(contestants.map(({ name }) => [name, { samples: [] as number[] } as Result]));
  const attempt = async (contestant: Contestant, act: (result: Result) => Promise<void>) => {
    const result = results.get(contestant.name) as Result;
    if (result.failure) return;
    await act(result).catch((error: Error) => {
      result.failure = error.message;
      contestant.close();
    });
  };
  for (const c of contestants) await attempt(c, () => c.ready());
  const spent = ({ name }: Contestant) => samplesOf(name).reduce((sum, ms) => sum + ms, 0);
  const samplesOf = (name: string) => (results.get(name) as Result).samples;
  for (let i = 0; i < reps; i++) {
    const going = contestants.filter((c) => !results.get(c.name)?.failure && spent(c) < budgetMs(reps));
    // Nobody goes on alone: its other repetitions would meet weather that those it is compared with never met.
    if (going.length === 1 && contestants.some((c) => c !== going[0] && samplesOf(c.name).length > 0)) break;
    for (const c of going)
      await attempt(c, async ({ samples }) => {
        samples.push(await c.time());
      });
  }
  return results;
}

export interface Result {
  /** Milliseconds. */
  samples: number[];
  /** Why it was left out. */
  failure?: string;
}

/** Times one task of the suite against others, and emits a row for each peer. Gives back ours, in milliseconds. */
export async function compare(
  context: Context,
  { name, ours, peers, params }: { name: string; ours: string; peers: (string | Contestant)[]; params: Params },
): Promise<{ median: number; fastest: number }> {
  const { suite, reps } = context;
  const all: Contestant[] = [ours, ...peers].map((c) => (typeof c === 'string' ? inProcess(suite, c, params) : c));
  try {
    const results = await takeTurns(all, reps);
    const mine = results.get(ours) as Result;
    if (mine.failure) throw new Error(`bench ${suite.name}: ${ours} failed at T=${params.T}: ${mine.failure}`);
    for (const { name: peer } of all.slice(1)) {
      const { samples, failure } = results.get(peer) as Result;
      const row = { ...facts(suite.name, name), ...params, reps, ms: median(mine.samples), peer };
      context.emit(failure ? { ...row, skipped: failure } : { ...row, ...against(mine.samples, samples) });
    }
    return { median: median(mine.samples), fastest: Math.min(...mine.samples) };
  } finally {
    for (const contestant of all) contestant.close();
  }
}

/** The fields of a row that compare two lists of timings. */
export function against(mine: number[], peers: number[]): Pick<Row, 'ms' | 'peerMs' | 'ratio' | 'spread'> {
  const [ms, peerMs] = [median(mine), median(peers)];
  return { ms, peerMs, ratio: peerMs / ms, spread: { ms: range(mine), peerMs: range(peers) } };
}

let [build, native] = ['unknown', 'unknown'];

/** What every row says: where it was measured, and what ran. */
export function facts(suite: string, name: string): Row {
  const [{ model }] = cpus();
  const ran = { backend: 'wasm', build, native };
  return { suite, case: name, ...ran, cpu: model, cores: cpus().length, node: process.versions.node };
}

/** A contestant that runs a task of the suite in a process of its own. */
export function inProcess(suite: Suite, name: string, params: Params): Contestant {
  const task = suite.tasks[name];
  return forked({
    ...{ name, file: 'worker.ts', execArgv: ['--import', 'tsx'] },
    ...{ env: task.env, patienceMs: task.patienceMs, warmsUp: task.warmUp },
    request: { suite: suite.name, task: name, params },
    refusal: () => task.refusal?.(params),
    isOurs: task.setup === 'ours',
  });
}

/**
 * A contestant that is a script on the built package (`bench/<file>`, see `matmulfree/serve.mjs`): no compiler in its process, whose memory
 * is then that of a user's.
 */
export const inScript = (name: string, file: string, params: object, env?: Record<string, string>): Contestant =>
  forked({ name, file, execArgv: [], env, patienceMs: 5 * PATIENCE_MS, request: { params } });

interface Fork {
  name: string;
  /** In this folder. */
  file: string;
  execArgv: string[];
  env?: Record<string, string>;
  patienceMs?: number;
  warmsUp?: Task['warmUp'];
  /** What it is to prepare. */
  request: object;
  refusal?(): string | undefined;
  /** It says what ran. */
  isOurs?: boolean;
}

function forked(how: Fork): Contestant {
  const { name, file, execArgv, env, patienceMs = PATIENCE_MS, warmsUp, request, refusal, isOurs } = how;
  const told: Told = { values: [], memoryBytes: 0 };
  let child: ReturnType<typeof fork> | undefined;
  const ask = (message: object) =>
    new Promise<Answer>((resolve, reject) => {
      const worker = child as NonNullable<typeof child>;
      const timer = setTimeout(() => done(new Error(`took more than ${patienceMs / 1000} s`)), patienceMs);
      const onMessage = (answer: Answer) => done(answer.error ? new Error(answer.error) : answer);
      const onExit = (code: number | null) => done(new Error(`its process ended (exit code ${code})`));
      const done = (outcome: Answer | Error) => {
        clearTimeout(timer);
        worker.off('message', onMessage).off('exit', onExit);
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      };
      worker.on('message', onMessage).on('exit', onExit);
      worker.send(message);
    });
  const time = async () => hear(told, await ask({ kind: 'time' }));
  return {
    name,
    told,
    async ready() {
      const reason = refusal?.();
      if (reason) throw new Error(reason);
      child = fork(fileURLToPath(new URL(file, import.meta.url)), [], {
        execArgv,
        env: { ...environment(), NODE_NO_WARNINGS: '1', ...env },
      });
      const answer = await ask({ kind: 'prepare', ...request });
      told.outputs = answer.outputs;
      if (isOurs) {
        [build, native] = [answer.build ?? 'none', answer.native ?? 'off'];
        told.ran = { build, native };
      }
      await warmUp(time, warmsUp);
    },
    time,
    close() {
      child?.kill('SIGKILL');
      child = undefined;
    },
  };
}

/** Notes what came with a timing, and gives the timing. */
export function hear(told: Told, { ms, value, memoryBytes = 0 }: Answer): number {
  if (value !== undefined) told.values.push(value);
  told.memoryBytes = Math.max(told.memoryBytes, memoryBytes);
  return ms;
}

export interface Answer {
  ms: number;
  value?: number;
  outputs?: number[];
  memoryBytes?: number;
  build?: string;
  native?: string;
  error?: string;
}

/** Runs the suite's tests; throws when they are red, because a figure for wrong results is worth nothing. */
export function requireGreen(tests: string[]): void {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const vitest = fileURLToPath(new URL('../node_modules/vitest/vitest.mjs', import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [vitest, 'run', ...tests], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0)
    throw new Error(`bench: the tests ${tests.join(' ')} are red, so nothing is measured\n${stdout}\n${stderr}`);
}
