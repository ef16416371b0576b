/** `seqmix generate --workers` as a process: the same text, and one line where a thread is lost or never answers. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { seqmix, temporaryFolder, text } from '../support/run.js';

const folder = temporaryFolder();
writeFileSync(join(folder, 'prompt.txt'), text);

function preload(name: string, code: string): Record<string, string> {
  const file = join(folder, `${name}.mjs`);
  writeFileSync(file, `import { parentPort, threadId } from 'node:worker_threads';\n${code}`);
  return { NODE_OPTIONS: `--import ${pathToFileURL(file)}` };
}

const generate = (flags: string[], env?: Record<string, string>) =>
  seqmix(['generate', 'gla-bytes-moby-dick', '--max-tokens=20', ...flags], { cwd: folder, env });

test('the text is that of one core', async () => {
  const [one, two] = await Promise.all([
    generate(['--prompt-file=prompt.txt']),
    generate(['--prompt-file=prompt.txt', '--workers=2']),
  ]);
  expect(one.code).toBe(0);
  expect(two).toMatchObject({ code: 0, stdout: one.stdout });
  expect(one.stdout.startsWith(text)).toBe(true);
});

test('a thread that is lost is one line', async () => {
  const env = preload('lost', "if (threadId === 1) parentPort.on('message', () => process.exit(7));");
  const { code, stderr } = await generate(['--prompt-file=prompt.txt', '--workers=2'], env);
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: 'error: worker 1 of 2 (layers 2 to 4) ended with exit code 7\n',
  });
});

test('a short prompt starts no thread, a wrong number of workers is refused', async () => {
  const env = preload('none', 'if (threadId > 0) process.exit(7);');
  expect(await generate(['--prompt=Call me', '--workers=2'], env)).toMatchObject({ code: 0 });
  const refused = await generate(['--workers=0']);
  expect(refused).toMatchObject({ code: 1, stderr: 'error: generate: workers must be a positive integer, got 0\n' });
});

test('a thread that never answers is named, not the one that waits for it', async () => {
  const env = preload('hung', "if (threadId === 1) parentPort.on('message', () => { for (;;); });");
  const script = join(folder, 'hung-run.mjs');
  const dist = (path: string) => JSON.stringify(new URL(`../../dist/${path}`, import.meta.url).href);
  writeFileSync(
    script,
    `
    import { useBackend } from ${dist('index.js')};
    import { CausalLM, Session } from ${dist('models/index.js')};
    import { PrefillPool } from ${dist('train/index.js')};
    await useBackend('wasm');
    const model = new CausalLM({ hiddenSize: 16, numLayers: 3, mlp: { intermediateSize: 24 } });
    const pool = await PrefillPool.start(model, { workers: 3, timeout: 2 });
    const session = new Session(model);
    session.append(new Int32Array(100));
    await pool.read(session, 8).catch((error) => console.log(error.message));
    await pool.close();
    console.log(session.position);
    `,
  );
  const { stdout } = await promisify(execFile)(process.execPath, [script], { env: { ...process.env, ...env } });
  expect(stdout).toBe(
    'worker 1 of 3 (layer 1) gave no sign of life for 2 s in its part "read" (more patience: timeout, 0 for no end)\n0\n',
  );
});
