/** Every command as a process of the built command line. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { resolveRunConfig } from '../../src/config/index.js';
import { CausalLM } from '../../src/models/index.js';
import { exportModel } from '../../src/train/checkpoint/index.js';
import { train } from '../../src/train/loop.js';
import { seqmix, temporaryFolder, tinyRun, writeRun } from '../support/run.js';

const cwd = temporaryFolder();
const run = (...args: string[]) => seqmix(args, { cwd });

beforeAll(async () => {
  writeRun(cwd);
  const dir = join(cwd, 'done');
  const config = resolveRunConfig(tinyRun({ output: { dir }, train: { steps: 12, samplePrompts: [] } }), {
    folder: cwd,
  });
  await train(config, { progress: { line: () => {}, tick: () => {}, stop: () => {} } });
});

describe('usage', () => {
  test('--help lists the commands, --version is that of the package', async () => {
    const [help, version] = await Promise.all([run('--help'), run('--version')]);
    expect(help.code).toBe(0);
    for (const command of [
      'train',
      'generate',
      'eval',
      'describe',
      'export',
      'pack',
      'ssm-transfer',
      'attention-error',
      'doctor',
      'build-native',
    ])
      expect(help.stdout).toMatch(new RegExp(`^ {2}${command} `, 'm'));
    expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test('an unknown command, option or setting is wrong usage: exit code 2, and what was meant', async () => {
    const [command, option, setting, number] = await Promise.all([
      run('trian'),
      run('generate', 'done', '--temprature', '1'),
      run('train', 'run.json', '--train.stesp=3', '--train.lr', '-1'),
      run('generate', 'done', '-n', '1.5'),
    ]);
    expect(command).toMatchObject({ code: 2, stdout: '' });
    expect(command.stderr).toContain('Did you mean train?');
    expect(option.code).toBe(2);
    expect(option.stderr).toContain('Did you mean --temperature?');
    expect(setting.code).toBe(2);
    expect(setting.stderr).toBe(
      'error: run.json: 2 problems\n  train.lr: expected a number > 0, got -1\n  train.stesp: unknown key (with value 3); did you mean "steps"?\n',
    );
    expect(number).toMatchObject({ code: 2, stderr: 'error: expected a whole number, got "1.5"\n' });
  });
});

test('train: progress as plain lines in a pipe, files in the folder of the run', async () => {
  const { code, stdout, stderr } = await run('train', 'run.json', '--output.dir=new', '--train.steps', '3', '--seed=2');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/seed 2$/m);
  expect(stdout).toMatch(/^step 3\/3 /m);
  expect(stdout).not.toContain('\x1b');
  expect(stdout).toContain('sample more: seqmix generate new --prompt "line "');
  expect(readdirSync(join(cwd, 'new'))).toEqual(['best.json', 'checkpoints', 'metrics.jsonl']);
});

test('train: a truncated checkpoint and a missing data file are failures: exit code 1', async () => {
  const folder = join(cwd, 'new');
  const [damaged] = readdirSync(join(folder, 'checkpoints')).slice(-1);
  const file = join(folder, 'checkpoints', damaged, 'model.safetensors');
  writeFileSync(file, readFileSync(file).subarray(0, -100));
  const [resume, generate, missing] = await Promise.all([
    run('train', 'run.json', '--output.dir=new', '--train.steps=4', '--seed=2', '--resume'),
    run('generate', join(folder, 'checkpoints', damaged)),
    run('train', 'run.json', '--output.dir=other', '--data.source.files=nowhere/*.txt'),
  ]);
  for (const { code, stderr } of [resume, generate]) {
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: .*model\.safetensors is damaged: expected \d+ bytes with sha256/);
  }
  expect(missing.code).toBe(1);
  expect(missing.stderr).toMatch(/^error: data: ".*nowhere\/\*\.txt" matches no file/);
});

describe('generate', () => {
  const generate = (...args: string[]) => run('generate', 'done', '--seed', '3', ...args);

  test('the text on stdout, the figures on stderr; a session goes on where it stopped', async () => {
    const [whole, first] = await Promise.all([
      generate('-p', 'line ', '-n', '12', '--temperature', '0'),
      generate('-p', 'line ', '-n', '5', '--temperature', '0', '--save-session', 'five.session'),
    ]);
    expect(whole.code).toBe(0);
    expect(whole.stdout).toMatch(/^line .{12}\n$/s);
    expect(whole.stderr).toMatch(
      /^\[12 tokens, the first after \d\.\d\d s, the others \d+ per second; state 1\.02 kB after 16 tokens; done.checkpoints.step-\d+\]\n$/,
    );
    const second = await generate('-n', '7', '--temperature', '0', '--load-session', 'five.session');
    expect(second.code).toBe(0);
    expect(first.stdout.slice(0, -1) + second.stdout.slice(0, -1)).toBe(whole.stdout.slice(0, -1));
  });

  test('a model or session that is not there', async () => {
    const [model, session] = await Promise.all([run('generate', 'nothing'), generate('--load-session', 'no.session')]);
    expect(model).toMatchObject({ code: 1, stdout: '' });
    expect(model.stderr).toMatch(/^error: no model "nothing": expected the folder of a run/);
    expect(session).toMatchObject({ code: 1, stdout: '' });
    expect(session.stderr).toContain('saved with --save-session at no.session, found no file');
  });
});

test('export, then eval of the exported model as of the run; describe without weights', async () => {
  const exported = await run('export', 'done', 'model', '--dtype', 'F32');
  expect(exported).toMatchObject({ code: 0, stderr: '' });
  expect(exported.stdout).toMatch(
    /^model: 3,840 parameters of step 12 from done.checkpoints.step-00000012 as F32, 15\.4 kB$/m,
  );
  const card = readFileSync(join(cwd, 'model/README.md'), 'utf8');
  expect(card).toMatch(
    /^# model\n[\s\S]*\| parameters \| 3,840, stored as F32 \|[\s\S]*\| held-out bits per byte \| \d\.\d{3} \|/,
  );
  const [ofRun, ofModel, ofFile, described, overridden] = await Promise.all([
    run('eval', 'done', '--json'),
    run('eval', 'model', '--json'),
    run('eval', 'model', 'text.txt', '--seq-len', '50'),
    run('describe', 'model', '--json'),
    run('describe', 'run.json', '--model.numLayers=1'),
  ]);
  const [a, b] = [ofRun, ofModel].map(({ stdout }) => JSON.parse(stdout));
  expect(b).toMatchObject({ model: 'model', step: 12, loss: a.loss, bpb: a.bpb, tokens: 300, gzipBpb: a.gzipBpb });
  expect(ofFile.stdout).toMatch(
    /^model, step 12\n\d\.\d{4} nats\/token, \d\.\d{3} bits\/byte over 3,012 tokens\ngzip -9 of the same bytes: /,
  );
  expect(JSON.parse(described.stdout).parameters.total).toBe(3840);
  expect(overridden).toMatchObject({ code: 0, stderr: '' });
  expect(overridden.stdout).toMatch(/2,\d{3} parameters; hidden size 8, 1 layers/);
});

describe('describe --conditioning', () => {
  const hybrid = 'hybrid';
  beforeAll(async () => {
    const mixers = [{ type: 'gka' as const, numHeads: 2 }, 'softmax_attention' as const];
    const model = new CausalLM({ hiddenSize: 8, numLayers: 2, mixers, mlp: { intermediateSize: 8 } });
    const weights = new Map(
      [...model.weights].map(([name, x]) => [name, { shape: x.shape, data: Float32Array.from(x.dataSync()) }]),
    );
    await exportModel(join(cwd, hybrid), { weights, config: model.config, dtype: 'F32' });
    model.dispose();
  });

  test('tables, JSON and a picture of the layers that solve', async () => {
    const args = ['describe', '--conditioning', hybrid, '--text', 'text.txt', '--tokens', '40'];
    const [table, json] = await Promise.all([run(...args, '--plot', 'residuals.svg'), run(...args, '--json')]);
    expect(table).toMatchObject({ code: 0, stderr: '' });
    expect(table.stdout).toMatch(/^hybrid, text\.txt\n40 tokens read, 16 of them looked at in every head\n/);
    expect(table.stdout).toMatch(/^ +0 +2 +30 steps +0\.02 .* 51\.0$/m);
    expect(table.stdout).toMatch(/^plot: residuals\.svg$/m);
    expect(readFileSync(join(cwd, 'residuals.svg'), 'utf8')).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
    expect(JSON.parse(json.stdout)).toMatchObject({ model: hybrid, tokens: 40, layers: [{ layer: 0, heads: 2 }] });
  });

  test('what does not fit is said', async () => {
    const [other, untold, alone, setting] = await Promise.all([
      run('describe', '--conditioning', 'done', '--text', 'text.txt'),
      run('describe', '--conditioning', hybrid),
      run('describe', hybrid, '--plot', 'residuals.svg'),
      run('describe', '--conditioning', hybrid, '--text', 'text.txt', '--model.numLayers=1'),
    ]);
    expect(other.code).toBe(1);
    expect(other.stderr).toContain('the model has no layer of gka, whose conditioning this is; its layers are of gla');
    expect(untold).toMatchObject({
      code: 2,
      stderr: 'error: --conditioning needs a text to read; give --text <file>\n',
    });
    expect(alone).toMatchObject({ code: 2, stderr: 'error: --plot is for --conditioning, which is not given\n' });
    expect(setting.code).toBe(2);
    expect(setting.stderr).toContain('--conditioning is of a model as it is; leave out --model.numLayers=1');
  });
});

test('doctor', async () => {
  const { code, stdout } = await run('doctor', '--json', '--backend', 'cpu');
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ backend: 'cpu', node: process.versions.node });
});

describe('ssm-transfer', () => {
  test('a table by size and form, the same each time, and a plot', async () => {
    const args = ['ssm-transfer', '--sizes', '8,16', '--steps', '3', '--seed', '2'];
    const [table, json] = await Promise.all([run(...args, '--plot', 'errors.svg'), run(...args, '--json')]);
    expect(table.code, table.stderr).toBe(0);
    const rows = table.stdout.trim().split('\n');
    expect(rows).toHaveLength(2 + 2 * 5);
    expect(rows[3]).toMatch(/^\| 8 \| S4D-LegS \| {2}\| 1 \| -0\.50 \| /);
    const studies = JSON.parse(json.stdout) as { size: number; models: { sup: number }[] }[];
    expect(studies.map(({ size }) => size)).toEqual([8, 16]);
    const cells = rows.filter((row) => row.includes('S4D-LegS')).map((row) => Number(row.split('|')[6]));
    for (const [i, { models }] of studies.entries()) expect(cells[i] / models[0].sup).toBeCloseTo(1, 1);
    expect(readFileSync(join(cwd, 'errors.svg'), 'utf8')).toContain('S4D-LegS, N = 16');
  });

  test('sizes that are not even are wrong', async () => {
    const [odd, word] = await Promise.all([run('ssm-transfer', '--sizes', '7'), run('ssm-transfer', '--sizes', 'big')]);
    expect(odd).toMatchObject({
      code: 1,
      stderr: 'error: ssm-transfer: each size must be even and at least 4, got 7\n',
    });
    expect(word.code).toBe(2);
  });
});
