/** A stream that can be stopped, saved and gone on with: what a model remembers, and where its sampling stands. */
import * as tf from '@tensorflow/tfjs';
import {
  readSafetensors,
  type SafeTensor,
  SafetensorsError,
  type TensorToWrite,
  writeSafetensors,
} from '../formats/safetensors.js';
import type { LayerState } from '../layers/index.js';
import type { CausalLM, ModelState } from './causalLM.js';
import type { ModelConfig } from './config.js';
import { restoreLayer, type StoredTensor, storeLayer } from './storedState.js';

const FORMAT = 'seqmix-session';
const VERSION = '1';

/** The bytes are not a session, or one of another model. */
export class SessionError extends Error {
  override readonly name = 'SessionError';
}

/**
 * One sequence being read and written (batch 1). It owns the model's state: `dispose` frees it.
 * Pass it to `generate` to go on where the last call stopped; `toBytes` and `fromBytes` carry it over to another process, where it
 * gives the tokens it would have given here.
 */
export class Session {
  /** The state after `position` tokens; undefined before the first. */
  state: ModelState | undefined;
  /** Tokens read. */
  position = 0;
  /** The end of the sequence that is still to be read: as a rule the last token sampled. */
  unread = new Int32Array(0);
  /** Tokens sampled so far: the counter of the random numbers. */
  sampled = 0;
  /** Tokens that occur in the sequence, for the repetition penalty. */
  readonly seen = new Set<number>();

  /** @param model the session is of its config; weights are not kept */
  constructor(readonly model: CausalLM) {}

  /** Puts tokens at the end of the sequence. @throws RangeError for a token that is not an integer in 0 .. vocabSize - 1 */
  append(ids: ArrayLike<number>): void {
    const { vocabSize } = this.model.config;
    for (let i = 0; i < ids.length; i++)
      if (!(Number.isInteger(ids[i]) && ids[i] >= 0 && ids[i] < vocabSize))
        throw new RangeError(
          `Session.append: token ids are integers from 0 to ${vocabSize - 1}, got ${ids[i]} at ${i}`,
        );
    const all = new Int32Array(this.unread.length + ids.length);
    all.set(this.unread);
    all.set(ids, this.unread.length);
    this.unread = all;
    for (let i = 0; i < ids.length; i++) this.seen.add(ids[i]);
  }

  /**
   * Reads the unread tokens, at most `max` of them.
   * @returns the logits after the last one read, [1, 1, V]; the caller owns them
   */
  read(max = Number.POSITIVE_INFINITY): tf.Tensor3D {
    const ids = this.unread.subarray(0, max);
    if (ids.length === 0) throw new RangeError('Session.read: there is no unread token; append one first');
    const tokens = tf.tensor2d(ids, [1, ids.length], 'int32');
    const { logits, state } = this.model.forward(tokens, this.state, { lastOnly: true });
    tokens.dispose();
    this.advance(ids.length, state);
    return logits;
  }

  /** Takes over the state after the next `count` unread tokens, wherever it was computed, and frees the one before. */
  advance(count: number, state: ModelState): void {
    tf.dispose(this.state);
    this.state = state;
    this.position += count;
    this.unread = this.unread.subarray(count);
  }

  /** Frees the state; the session then stands before its first token. */
  dispose(): void {
    tf.dispose(this.state);
    this.state = undefined;
    [this.position, this.sampled, this.unread] = [0, 0, new Int32Array(0)];
    this.seen.clear();
  }

  /** The session as a safetensors file. */
  async toBytes(): Promise<Uint8Array> {
    const tensors = new Map<string, TensorToWrite>();
    for (const [i, layer] of (this.state ?? []).entries())
      for (const [name, x] of Object.entries(await storeLayer(layer))) tensors.set(`layers.${i}.${name}`, x);
    for (const [name, data] of Object.entries({ seen: Int32Array.from(this.seen), unread: this.unread }))
      tensors.set(name, { dtype: 'I32', shape: [data.length], data });
    const { position, sampled } = this;
    return writeSafetensors(tensors, {
      ...{ kind: FORMAT, version: VERSION, config: JSON.stringify(this.model.config) },
      session: JSON.stringify({ position, sampled }),
    });
  }

  /**
   * The session that `toBytes` saved.
   * @param model must have the same config; that it has the same weights is the caller's care
   * @throws SessionError when the bytes are not a session or of another config
   */
  static fromBytes(bytes: Uint8Array, model: CausalLM): Session {
    const { tensors, metadata } = readFile(bytes);
    if (metadata.kind !== FORMAT || metadata.version !== VERSION)
      throw new SessionError(
        `Session.fromBytes: expected ${FORMAT} version ${VERSION}, got ${metadata.kind} version ${metadata.version}`,
      );
    checkConfig(JSON.parse(metadata.config) as ModelConfig, model.config);
    const session = new Session(model);
    const { position, sampled } = JSON.parse(metadata.session) as Pick<Session, 'position' | 'sampled'>;
    Object.assign(session, { position, sampled });
    const ints = (name: string) => (tensors.get(name) as SafeTensor).data as Int32Array;
    for (const token of ints('seen')) session.seen.add(token);
    session.unread = ints('unread').slice();
    if (position > 0) session.state = model.config.mixers.map((_, i) => layerState(tensors, `layers.${i}.`));
    return session;
  }
}

function readFile(bytes: Uint8Array) {
  try {
    return readSafetensors(bytes);
  } catch (error) {
    if (!(error instanceof SafetensorsError)) throw error;
    throw new SessionError(`Session.fromBytes: the file is damaged: ${error.message}`);
  }
}

/** Whether its weights are packed is no matter: the states are the same. */
function checkConfig(saved: ModelConfig, own: ModelConfig): void {
  const keys = [...new Set([...Object.keys(saved), ...Object.keys(own)])] as (keyof ModelConfig)[];
  const other = keys.filter((key) => key !== 'packed' && JSON.stringify(saved[key]) !== JSON.stringify(own[key]));
  if (other.length === 0) return;
  const list = other.map(
    (key) => `  ${key}: the session has ${JSON.stringify(saved[key])}, the model ${JSON.stringify(own[key])}`,
  );
  throw new SessionError(
    `Session.fromBytes: the session is of another model; open it with the model it was saved with\n${list.join('\n')}`,
  );
}

function layerState(tensors: ReadonlyMap<string, SafeTensor>, prefix: string): LayerState {
  const mine = [...tensors].filter(([name]) => name.startsWith(prefix));
  return restoreLayer(Object.fromEntries(mine.map(([name, x]) => [name.slice(prefix.length), x as StoredTensor])));
}
