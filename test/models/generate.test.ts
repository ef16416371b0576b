/** Generation: what is drawn, sessions, ends, leaks, and constant cost over a long stream. */
import * as tf from '@tensorflow/tfjs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  CausalLM,
  type GenerateOptions,
  generate,
  type ModelConfigInput,
  Session,
  SessionError,
} from '../../src/models/index.js';
import { writeSafetensors } from '../../src/train/index.js';
import { heldBytes, lively, logitsInPieces, smallConfigs, tokenIds } from './support.js';

async function collect(model: CausalLM, ids: ArrayLike<number>, options: GenerateOptions): Promise<number[]> {
  const tokens: number[] = [];
  for await (const { token } of generate(model, ids, options)) tokens.push(token);
  return tokens;
}

let model: CausalLM;
let tensors: number;
const use = (name: string, changes: ModelConfigInput = {}) => {
  model = new CausalLM({ ...smallConfigs[name], ...lively, ...changes }, { seed: 21 });
  tensors = tf.memory().numTensors;
};
afterEach(() => {
  expect(tf.memory().numTensors, 'tensors left behind').toBe(tensors);
  model.dispose();
});

describe.each(Object.keys(smallConfigs))('%s', (name) => {
  beforeEach(() => use(name));

  test('greedy tokens are those of reading the whole sequence anew each time, whatever the pieces', async () => {
    const prompt = tokenIds(31, 13);
    const want = [...prompt];
    for (let n = 0; n < 12; n++) {
      const last = logitsInPieces(model, Int32Array.from(want), [want.length]).slice(-37);
      want.push(last.indexOf(Math.max(...last)));
    }
    for (const prefillChunk of [1, 4, 13, 512])
      expect(await collect(model, prompt, { temperature: 0, maxTokens: 12, prefillChunk })).toEqual(want.slice(13));
  });

  test('a session saved and restored goes on exactly as an unbroken one', async () => {
    const options = { seed: 'story', topK: 12, repetitionPenalty: 1.2, temperature: 1.3 };
    const prompt = tokenIds(32, 9);
    const unbroken = await collect(model, prompt, { ...options, maxTokens: 40 });
    const session = new Session(model);
    const first = await collect(model, prompt, { ...options, maxTokens: 15, session });
    const bytes = await session.toBytes();
    const restored = Session.fromBytes(bytes, model);
    const [here, there] = [session, restored].map((s) => collect(model, [], { ...options, maxTokens: 25, session: s }));
    expect([...first, ...(await here)]).toEqual(unbroken);
    expect([...first, ...(await there)]).toEqual(unbroken);
    expect(session.position).toBe(9 + 39);
    expect(heldBytes(session.state!)).toBe(model.stateBytes(1, session.position));
    expect(await restored.toBytes()).toEqual(await session.toBytes());
    for (const s of [session, restored]) s.dispose();
  });
});

describe('what is drawn', () => {
  beforeEach(() => use('gla'));

  test('the same seed draws the same tokens, another seed others; positions count on from the prompt', async () => {
    const draw = (seed: number | string) => collect(model, [1, 2, 3], { seed, maxTokens: 30 });
    const [a, again, text, other] = [await draw(5), await draw(5), await draw('5'), await draw(6)];
    expect(again).toEqual(a);
    expect(text).toEqual(a);
    expect(other).not.toEqual(a);
    const positions: number[] = [];
    for await (const { position } of generate(model, [1, 2, 3], { maxTokens: 3 })) positions.push(position);
    expect(positions).toEqual([3, 4, 5]);
  });

  test('stop tokens end it and are not yielded, but stay in the session', async () => {
    const tokens = await collect(model, [4, 5], { seed: 1, maxTokens: 30 });
    const stop = tokens[7];
    const session = new Session(model);
    const until = await collect(model, [4, 5], { seed: 1, maxTokens: 30, stopTokens: [stop], session });
    expect(until).toEqual(tokens.slice(0, tokens.indexOf(stop)));
    expect([...session.unread]).toEqual([stop]);
    expect(await collect(model, [], { seed: 1, maxTokens: 3, session })).toEqual(
      tokens.slice(until.length + 1, until.length + 4),
    );
    session.dispose();
  });

  test('ids given to a session follow what is there', async () => {
    const session = new Session(model);
    const [a] = await collect(model, [7, 8], { seed: 2, maxTokens: 1, session });
    const [b] = await collect(model, [9], { temperature: 0, maxTokens: 1, session });
    expect(await collect(model, [7, 8, a, 9], { temperature: 0, maxTokens: 1 })).toEqual([b]);
    session.dispose();
  });
});

describe('ends', () => {
  beforeEach(() => use('gla'));

  test('leaving the loop frees everything; a given session stands where it stopped', async () => {
    const whole = await collect(model, [1, 2], { seed: 3, maxTokens: 10 });
    for await (const { token } of generate(model, [1, 2], { seed: 3 })) if (token === whole[4]) break;
    expect(tf.memory().numTensors).toBe(tensors);
    const session = new Session(model);
    const first: number[] = [];
    for await (const { token } of generate(model, [1, 2], { seed: 3, session })) {
      first.push(token);
      if (first.length === 4) break;
    }
    expect([...first, ...(await collect(model, [], { seed: 3, maxTokens: 6, session }))]).toEqual(whole);
    session.dispose();
  });

  test('an iterator that is never started holds nothing', () => {
    generate(model, [1, 2]);
  });

  test('aborting throws the reason, in the prompt and between tokens', async () => {
    const stop = new AbortController();
    const reason = new Error('enough');
    const run = async () => {
      for await (const _ of generate(model, [1], { signal: stop.signal })) stop.abort(reason);
    };
    await expect(run()).rejects.toBe(reason);
    const session = new Session(model);
    await expect(collect(model, [1, 2, 3], { signal: stop.signal, session })).rejects.toBe(reason);
    expect([...session.unread], 'the prompt is still to be read').toEqual([1, 2, 3]);
    session.dispose();
  });

  test('a timer gets its turn while tokens are drawn without pause', async () => {
    const stop = AbortSignal.timeout(30);
    await expect(collect(model, [1], { signal: stop, maxTokens: 1e6 })).rejects.toThrow(/timeout/);
  });

  test('no token asked for, none drawn', async () => {
    const session = new Session(model);
    expect(await collect(model, [1, 2], { maxTokens: 0, session })).toEqual([]);
    expect([session.position, session.sampled, ...session.unread]).toEqual([0, 0, 1, 2]);
    session.dispose();
  });
});

describe('the door', () => {
  beforeEach(() => use('gla'));

  test.each<[GenerateOptions, RegExp]>([
    [{ maxTokens: -1 }, /maxTokens must be an integer >= 0, got -1/],
    [{ maxTokens: 1.5 }, /maxTokens must be an integer >= 0, got 1.5/],
    [{ prefillChunk: 0 }, /prefillChunk must be a positive integer, got 0/],
    [{ temperature: -1 }, /temperature must be a finite number >= 0, got -1/],
    [{ temperature: Number.NaN }, /temperature must be .*, got NaN/],
    [{ topK: 0 }, /topK must be a positive integer, got 0/],
    [{ topP: 0 }, /topP must be above 0 and at most 1, got 0/],
    [{ topP: 1.1 }, /topP must be above 0 and at most 1, got 1.1/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty must be a finite number > 0, got 0/],
  ])('%j is refused at once', (options, message) => {
    expect(() => generate(model, [1], options)).toThrow(message);
  });

  test('token ids out of range are refused at once, and the session stays as it was', () => {
    const session = new Session(model);
    for (const [id, text] of [
      [37, '37'],
      [-1, '-1'],
      [1.5, '1.5'],
      [Number.NaN, 'NaN'],
    ] as const)
      expect(() => generate(model, [1, id], { session })).toThrow(
        `token ids are integers from 0 to 36, got ${text} at 1`,
      );
    expect(session.unread).toHaveLength(0);
    expect(() => generate(model, [])).toThrow(/there is no token to continue from/);
    expect(() => session.read()).toThrow(/there is no unread token/);
  });

  test('sessions of other models and damaged files are refused', async () => {
    const session = new Session(model);
    await collect(model, [1], { maxTokens: 2, session });
    const bytes = await session.toBytes();
    const other = new CausalLM({ ...smallConfigs.gla, ...lively, numLayers: 1, vocabSize: 40 });
    const open =
      (data: Uint8Array, m = model) =>
      () =>
        Session.fromBytes(data, m);
    expect(open(bytes, other)).toThrow(SessionError);
    expect(open(bytes, other)).toThrow(/vocabSize: the session has 37, the model 40/);
    expect(open(bytes, other)).toThrow(/numLayers: the session has 2, the model 1/);
    expect(() => generate(other, [1], { session })).toThrow(/session is of another model/);
    expect(open(bytes.subarray(0, bytes.length - 1))).toThrow(SessionError);
    expect(open(writeSafetensors(new Map()))).toThrow(/expected seqmix-session version 1, got undefined/);
    for (const thing of [session, other]) thing.dispose();
  });
});

test('10,000 tokens: no tensor more, no byte more, and a late token takes no longer than an early one', async () => {
  use('gla', { numLayers: 1 });
  const times: number[] = [];
  let memory: { numTensors: number; numBytes: number } | undefined;
  let last = performance.now();
  for await (const { position } of generate(model, [1], { maxTokens: 10_000, seed: 9 })) {
    const now = performance.now();
    times.push(now - last);
    last = now;
    if (position % 100) continue;
    const { numTensors, numBytes } = tf.memory();
    memory ??= { numTensors, numBytes };
    expect({ numTensors, numBytes }).toEqual(memory);
  }
  expect(times).toHaveLength(10_000);
  const median = (list: number[]) => list.sort((a, b) => a - b)[list.length >> 1];
  expect(median(times.slice(-2000))).toBeLessThan(2 * median(times.slice(1000, 3000)));
});
