#!/usr/bin/env node
/** The command line: parse, call, print. Exit codes: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError, Option } from 'commander';
import { ConfigError, runConfigSchema } from '../config/index.js';
import { blockedThreads } from '../threads/blocked.js';
import type { AttentionErrorFlags } from './attentionError.js';
import type { NoiseSweepFlags } from './noiseSweep.js';
import { splitOverrides } from './overrides.js';
import type { PackFlags } from './pack.js';
import type { SsmTransferFlags } from './ssmTransfer.js';
import type { TrainFlags } from './train.js';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

const backendOption = () =>
  new Option('--backend <name>', 'backend to compute on')
    .choices(['wasm', 'webgpu', 'tensorflow', 'cpu'])
    .default('wasm');

/** Parts of a run config that can be given whole: `--seed=1`, `--model=my.json`. */
const SETTINGS = Object.keys(runConfigSchema.shape);

function buildProgram(overrides: string[]): Command {
  const program = new Command('seqmix')
    .description('Train and run sequence models of linear cost on TensorFlow.js.')
    .version(version)
    .showHelpAfterError('(add --help for the options)')
    .exitOverride();

  program
    .command('train')
    .description('train the model that a run config describes')
    .argument('<config>', 'run config, e.g. configs/runs/quickstart.json')
    .addOption(new Option('--resume', 'go on from the last checkpoint of the run').default(false).conflicts('fresh'))
    .addOption(new Option('--fresh', 'delete an earlier run in the same folder first').default(false))
    .option('--workers <n>', 'threads that share the rows of each update (train.workers)', integer)
    .option('--profile [file]', 'print where the time of a step goes, write a trace (default: profile.json in the run)')
    .option('--profile-steps <n>', 'steps to profile, after the first three', integer, 10)
    .addHelpText(
      'after',
      `
Any setting of the config can be given on the command line by its path:
  seqmix train configs/runs/quickstart.json --train.lr=3e-4 --model.numLayers=6 --seed=1 --output.dir=runs/try
  seqmix train configs/runs/quickstart.json --data.source='{"type":"text","files":["books/*.txt"]}'
A config that is not here is looked for in the package.

Ctrl-C saves a checkpoint after the step at hand and says how to go on; a second Ctrl-C stops at once.
The run folder holds metrics.jsonl and checkpoints/, and one run at a time; a resumed run gives the same numbers as an unbroken one.`,
    )
    .action(async (config: string, options: Omit<TrainFlags, 'overrides'> & { workers?: number }) => {
      const { runTrain } = await import('./train.js');
      const { workers, ...flags } = options;
      const settings = workers === undefined ? overrides : [...overrides, `train.workers=${workers}`];
      process.exitCode = await runTrain(config, { ...flags, overrides: settings });
    });

  program
    .command('generate')
    .description('continue a text, streaming')
    .argument('<model>', 'a name in pretrained/, or the folder of a run, a checkpoint or an exported model')
    .option('-p, --prompt <text>', 'text to continue (default: "The ", or nothing more than the loaded session)')
    .addOption(new Option('--prompt-file <file>', 'take the text to continue from a file').conflicts('prompt'))
    .option('-n, --max-tokens <n>', 'tokens to generate', integer, 256)
    .option('-t, --temperature <x>', '0 takes the likeliest token', number, 0.8)
    .option('--top-k <k>', 'choose among the k likeliest tokens', integer)
    .option('--top-p <p>', 'choose among the likeliest tokens of total probability p', number)
    .option('--repetition-penalty <x>', 'above 1 discourages tokens already there', number, 1)
    .option('--stop <text...>', 'stop before any of these texts')
    .option('--seed <n>', 'the same seed gives the same text', integer, 0)
    .option('--load-session <file>', 'go on from a saved session')
    .option('--save-session <file>', 'save the state after the last token')
    .option('--workers <n>', 'cores that share the layers while a prompt of more than 1,536 tokens is read', integer, 1)
    .addOption(backendOption())
    .action(async (model: string, options) => {
      const { runGenerate } = await import('./generate.js');
      process.exitCode = await runGenerate(model, options);
    });

  program
    .command('eval')
    .description('score a text (nats per token, bits per byte), a task, or sequences with labels (accuracy, rmse)')
    .argument('<model>', 'a name in pretrained/, or the folder of a run, a checkpoint or an exported model')
    .argument(
      '[files...]',
      'text files or globs, .jsonl or .csv files for a classifier or regressor; default: the held-out part of the data the model was trained on',
    )
    .option('--seq-len <n>', 'tokens per window, or of an example of a task; default: as in training', integer)
    .option('--batch-size <n>', 'windows or sequences per batch', integer, 8)
    .addOption(
      new Option(
        '--split <part>',
        'part of the data of a classifier or regressor; default: test, else validation',
      ).choices(['train', 'validation', 'test']),
    )
    .addOption(
      new Option('--noise <kind>', 'put noise on the sequences: sinusoids of random phase').choices(['fourier']),
    )
    .option('--amplitude <x>', 'with --noise: its root mean square over that of each sequence', number, 0.1)
    .option('--frequencies <list>', 'with --noise: radians per step, e.g. 0.5,1.25', numbers)
    .option('--seed <n>', 'with --noise: the same seed gives the same phases', integer, 0)
    .option('--json', 'print one JSON object', false)
    .addOption(backendOption())
    .action(async (model: string, files: string[], options) => {
      const { noise: kind, amplitude, frequencies, seed, ...flags } = options;
      if (kind && !frequencies) throw usage('--noise needs --frequencies, in radians per step');
      if (!kind && frequencies) throw usage('--frequencies is for --noise fourier, which is not given');
      const { runEval } = await import('./eval.js');
      const noise = kind && { amplitude, frequencies, seed };
      process.exitCode = await runEval(model, files, { ...flags, noise });
    });

  program
    .command('predict')
    .description('what a classifier or regressor says of each sequence, one JSON object a line')
    .argument('<model>', 'the folder of a run, a checkpoint or an exported model')
    .requiredOption('--data <files...>', '.jsonl or .csv files or globs; labels may be missing')
    .option('--batch-size <n>', 'sequences per batch', integer, 8)
    .option('--probabilities', 'of a classifier: those of all classes', false)
    .addOption(backendOption())
    .action(async (model: string, options) => {
      const { runPredict } = await import('./predict.js');
      process.exitCode = await runPredict(model, options);
    });

  program
    .command('noise-sweep')
    .description(
      'what a sinusoid on the input costs classifiers or regressors, by its frequency; the worst on the test',
    )
    .argument('<models...>', 'folders of runs, checkpoints or exported models')
    .option('--amplitude <x>', 'root mean square of the noise over that of each sequence', number, 0.1)
    .option('--frequencies <n>', 'frequencies to try, up to pi radians per step', integer, 64)
    .option('--sequences <n>', 'sequences of the validation part to try them on', integer, 256)
    .option('--batch-size <n>', 'sequences per batch', integer, 32)
    .option('--seed <n>', 'the same seed gives the same phases', integer, 0)
    .option('--plot <file>', 'draw the figures by frequency (SVG; needs the package echarts)')
    .option('--json', 'print one JSON array', false)
    .addOption(backendOption())
    .action(async (models: string[], options: NoiseSweepFlags) => {
      const { runNoiseSweep } = await import('./noiseSweep.js');
      process.exitCode = await runNoiseSweep(models, options);
    });

  program
    .command('describe')
    .description('layers, shapes, parameters and state bytes of a model, without loading weights')
    .argument('<model>', 'a model or run config (.json), a name in pretrained/, or a folder with a model')
    .option('--json', 'print one JSON object', false)
    .option('--conditioning', 'load the weights, read a text, and show how well gka layers solve on it', false)
    .option('--text <file>', 'with --conditioning: the text')
    .option('--tokens <n>', 'with --conditioning: tokens of it to read', integer, 512)
    .option('--positions <n>', 'with --conditioning: positions to look at', integer, 16)
    .option('--plot <file>', 'with --conditioning: draw the residuals by steps of the solver (SVG)')
    .addOption(backendOption())
    .addHelpText(
      'after',
      '\nSettings can be tried out: seqmix describe configs/models/gla-tiny.json --model.numLayers=12',
    )
    .action(async (model: string, options) => {
      if (options.conditioning) {
        if (!options.text) throw usage('--conditioning needs a text to read; give --text <file>');
        if (overrides.length) throw usage(`--conditioning is of a model as it is; leave out ${overrides.join(' ')}`);
        const { runConditioning } = await import('./conditioning.js');
        process.exitCode = await runConditioning(model, options);
        return;
      }
      for (const name of ['text', 'plot'])
        if (options[name] !== undefined) throw usage(`--${name} is for --conditioning, which is not given`);
      const { runDescribe } = await import('./describe.js');
      process.exitCode = await runDescribe(model, { ...options, overrides });
    });

  program
    .command('export')
    .description('write the weights of a run as a model folder of its own, with a card (README.md)')
    .argument('<run>', 'folder of a run or a checkpoint; of a run the best checkpoint is taken')
    .argument('<folder>', 'folder to write')
    .addOption(
      new Option('--dtype <type>', 'element type of the weights').choices(['BF16', 'F16', 'F32']).default('BF16'),
    )
    .option('--last', 'take the last checkpoint instead of the best', false)
    .action(async (run: string, folder: string, options) => {
      const { runExport } = await import('./export.js');
      process.exitCode = await runExport(run, folder, options);
    });

  program
    .command('pack')
    .description('write a model of ternary weights for inference: two bits or less for each of them, with a card')
    .argument(
      '<model>',
      'a run (of which the best checkpoint is taken), a checkpoint, or an exported or published model',
    )
    .argument('<folder>', 'folder to write')
    .addOption(new Option('--bits <n>', 'bits of a ternary weight in the file').choices(['2', '1.6']).default('2'))
    .addOption(
      new Option('--dtype <type>', 'element type of the other weights in the file')
        .choices(['F32', 'BF16', 'F16'])
        .default('F32'),
    )
    .option('--last', 'take the last checkpoint instead of the best', false)
    .action(async (model: string, folder: string, options: PackFlags) => {
      const { runPack } = await import('./pack.js');
      process.exitCode = await runPack(model, folder, options);
    });

  program
    .command('ssm-transfer')
    .description(
      'how well diagonal state spaces stand for HiPPO-LegS: errors of transfer functions, S4D-LegS against PTD',
    )
    .option('--sizes <list>', 'numbers of states, even', integers, [16, 32, 64])
    .option('--seed <n>', 'of the random output vector and of the perturbations', integer, 0)
    .option('--gamma <x>', 'weight of the size of an optimised perturbation beside the condition number', number, 100)
    .option('--steps <n>', 'updates of an optimised perturbation', integer, 300)
    .option('--plot <file>', 'draw the errors over frequency (SVG; needs the package echarts)')
    .option('--json', 'print one JSON array', false)
    .action(async (options: SsmTransferFlags) => {
      const { runSsmTransfer } = await import('./ssmTransfer.js');
      process.exitCode = await runSsmTransfer(options);
    });

  program
    .command('attention-error')
    .description(
      'how far sparse, low-rank and summed (Scatterbrain) attention are from softmax attention at the same budget',
    )
    .option('--temps <list>', 'factors on q k of unit vectors', numbers, [0.5, 1, 2, 3, 4, 6, 8])
    .option('--tokens <n>', 'a multiple of 32', integer, 512)
    .option('--draws <n>', 'means are over so many draws', integer, 8)
    .option('--seed <n>', 'of the draws', integer, 0)
    .option('--plot <file>', 'draw the errors over temperature (SVG; needs the package echarts)')
    .option('--json', 'print one JSON array', false)
    .action(async (options: AttentionErrorFlags) => {
      const { runAttentionError } = await import('./attentionError.js');
      process.exitCode = await runAttentionError(options);
    });

  program
    .command('doctor')
    .description('what runs here: versions, backend, SIMD, threads, memory, missing kernels')
    .option('--json', 'print one JSON object', false)
    .addOption(backendOption())
    .action(async (options) => {
      const { runDoctor } = await import('./doctor.js');
      process.exitCode = await runDoctor(options);
    });

  program
    .command('build-native')
    .description('build the optional addon that multiplies matrices by OpenBLAS or Accelerate; says what it needs')
    .option('--force', 'build although it is up to date', false)
    .action(async (options: { force: boolean }) => {
      const { runBuildNative } = await import('./buildNative.js');
      process.exitCode = runBuildNative(options);
    });

  return program;
}

function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw usage(`expected a number, got "${text}"`);
  return value;
}

function integer(text: string): number {
  const value = number(text);
  if (!Number.isInteger(value)) throw usage(`expected a whole number, got "${text}"`);
  return value;
}

const integers = (text: string): number[] => text.split(',').map(integer);

const numbers = (text: string): number[] => text.split(',').map(number);

const usage = (message: string) => new CommanderError(2, 'seqmix.usage', message);

async function main(): Promise<void> {
  const argv = process.argv.slice(2);
  const takesSettings = ['train', 'describe'].includes(argv[0]);
  const { args, overrides } = takesSettings ? splitOverrides(argv, SETTINGS) : { args: argv, overrides: [] };
  try {
    await buildProgram(overrides).parseAsync(args, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.code === 'seqmix.usage') console.error(`error: ${error.message}`);
      process.exitCode = error.exitCode === 0 ? 0 : 2;
      return;
    }
    process.exitCode = error instanceof ConfigError ? 2 : 1;
    console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
    if (process.env.SEQMIX_DEBUG && error instanceof Error) console.error(error.stack);
  }
}

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(1); // whoever read our output (`| head`) has gone
  throw error;
});
await main();
if (blockedThreads()) process.kill(process.pid, 'SIGKILL'); // nothing else ends a process with such a thread
