/** A prompt read on several cores: a pipeline over the layers of a model, exact to the last bit. Node only. */
import { MessageChannel, type Transferable } from 'node:worker_threads';
import * as tf from '@tensorflow/tfjs';
import { nativeThreadsInUse } from '../backend/native.js';
import { arithmeticInUse } from '../backend/useBackend.js';
import { checkPositiveInt } from '../chunked/check.js';
import { packedMatrix } from '../chunked/index.js';
import type { PackedMatrix } from '../formats/ternary.js';
import type { CausalLM, ModelState, PackedArrays, Prefill, Session } from '../models/index.js';
import { isOfLayers, type LayerRange } from '../models/layerRange.js';
import { restoreLayer, type StoredLayer, storeLayer } from '../models/storedState.js';
import { Thread, type WorkerError } from '../threads/index.js';
import { Outlet } from './link.js';
import { cutLayers, layerCosts } from './ranges.js';
import { copyOf, type StageReader } from './stage.js';
import type { StageStart } from './worker.js';

export interface PrefillOptions {
  /** Cores, that of this thread included: 2 up to the number of layers. */
  workers: number;
  /** Tokens of a typical prompt, for which the layers are shared out evenly; default 16,384. Of no matter where states do not grow. */
  promptTokens?: number;
  /** Seconds without a sign of life (a kernel run) after which a thread is given up; 0: never. Default 600. */
  timeout?: number;
}

/** What came of a prompt in this thread. */
interface Fed {
  /** Tokens that went on into the pipeline. */
  tokens: number;
  /** The state of this thread's layers after them. */
  state: ModelState | undefined;
  /** What stopped it early. */
  fault?: { reason: unknown };
}

/**
 * Reads prompts for `generate` (its option `prefill`). This thread takes the embedding and the first layers, each other thread a copy of
 * the layers that follow: the weights as they are at the start. While one works on a piece of the prompt, those before it work on the
 * next ones; at the end the states come together here. Every layer sees the pieces it would see on one core, so all bits are the same.
 */
export class PrefillPool implements Prefill {
  readonly #model: CausalLM;
  readonly #ranges: readonly LayerRange[];
  readonly #threads: readonly Thread<StageReader>[];
  readonly #outlet: Outlet;

  private constructor(model: CausalLM, ranges: LayerRange[], threads: Thread<StageReader>[], outlet: Outlet) {
    this.#model = model;
    this.#ranges = ranges;
    this.#threads = threads;
    this.#outlet = outlet;
  }

  /**
   * Starts the threads, on the backend in use here.
   * @throws RangeError for a number of workers that the model's layers cannot be cut into, or a backend that is parallel by itself;
   *   WorkerError when a thread does not start
   */
  static async start(model: CausalLM, options: PrefillOptions): Promise<PrefillPool> {
    const { workers, promptTokens = 16384, timeout = 600 } = options;
    check(model, options);
    const ranges = cutLayers(layerCosts(model.config, promptTokens), workers);
    const channels = ranges.slice(1).map(() => new MessageChannel());
    const backend = {
      ...{ name: tf.getBackend() as StageStart['backend']['name'], nativeThreads: nativeThreadsInUse() },
      ...arithmeticInUse(),
    };
    const outlet = new Outlet(channels[0].port1);
    outlet.port.unref(); // the threads keep the process alive
    const threads: Thread<StageReader>[] = [];
    for (const [i, range] of ranges.slice(1).entries()) {
      const [inlet, next] = [channels[i].port2, channels[i + 1]?.port1];
      const [weights, packed] = [await weightsOf(model, range), await packedOf(model, range)];
      const data: StageStart = {
        ...{ backend, config: model.config, range, weights, packed, inlet },
        ...(next && { outlet: next }),
      };
      const transfer: Transferable[] = [inlet, ...(next ? [next] : [])];
      for (const { data } of weights.values()) transfer.push(data.buffer as ArrayBuffer);
      for (const { bytes } of packed.values()) transfer.push(bytes.buffer as ArrayBuffer);
      const name = `worker ${i + 1} of ${workers} (${layersIn(range)})`;
      threads.push(new Thread('prefill/worker.js', { ...{ name, data, transfer, timeout }, timeoutOption: 'timeout' }));
    }
    const pool = new PrefillPool(model, ranges, threads, outlet);
    try {
      await Promise.all(threads.map(({ ready }) => ready));
    } catch (error) {
      await pool.close();
      throw error;
    }
    return pool;
  }

  /** @throws WorkerError when a thread has ended or is silent: the session is then as before, and the pool is of no more use */
  async read(session: Session, chunk: number, turn: () => Promise<void> = async () => {}): Promise<void> {
    if (session.model !== this.#model) throw new RangeError('PrefillPool.read: the session is of another model');
    checkPositiveInt('PrefillPool.read', 'chunk', chunk);
    const before = session.state;
    const stored = await Promise.all(
      this.#ranges.slice(1).map(({ from, to }) => before && Promise.all(before.slice(from, to).map(storeLayer))),
    );
    const answers = this.#threads.map((thread, i) => thread.call('read', [stored[i]]));
    const fed = this.#feed(session, chunk, turn);
    const [{ tokens, state, fault }, ...theirs] = await Promise.all([fed, ...answers]).catch(async (error) => {
      this.#outlet.close(error as WorkerError);
      const { state } = await fed;
      tf.dispose(state?.filter((layer) => !before?.includes(layer)));
      throw error;
    });
    if (tokens) session.advance(tokens, [...state!, ...(theirs as StoredLayer[][]).flat().map(restoreLayer)]);
    if (fault) throw fault.reason;
  }

  /** Reads all pieces but the last with this thread's layers and sends them on. It ends the prompt in the pipeline however it goes. */
  async #feed(session: Session, chunk: number, turn: () => Promise<void>): Promise<Fed> {
    const { unread } = session;
    const [{ to }] = this.#ranges;
    let state = session.state?.slice(0, to);
    let [tokens, fault]: [number, Fed['fault']] = [0, undefined];
    try {
      while (unread.length - tokens > chunk) {
        await turn();
        const { x, state: next } = this.#begin(unread.subarray(tokens, tokens + chunk), state);
        if (tokens) tf.dispose(state); // the one before the first piece is the session's
        state = next;
        const piece = await copyOf(x);
        x.dispose();
        tokens += chunk;
        await this.#outlet.send(piece);
      }
    } catch (reason) {
      fault = { reason };
    }
    await this.#outlet.send(null).catch(() => {}); // closed: then there is nobody to tell
    return { tokens, state, fault };
  }

  #begin(ids: Int32Array, state: ModelState | undefined): { x: tf.Tensor; state: ModelState } {
    const tokens = tf.tensor2d(ids, [1, ids.length], 'int32');
    try {
      return this.#model.forwardTo(this.#ranges[0].to, tokens, state);
    } finally {
      tokens.dispose();
    }
  }

  /** Tensors held by each of the threads. */
  numTensors(): Promise<number[]> {
    return Promise.all(this.#threads.map((thread) => thread.call('numTensors', [])));
  }

  /** Ends the threads; the model stays. */
  async close(): Promise<void> {
    this.#outlet.port.close();
    await Promise.all(this.#threads.map((thread) => thread.end()));
  }
}

function check({ config: { numLayers } }: CausalLM, { workers, promptTokens = 1 }: PrefillOptions): void {
  if (!Number.isInteger(workers) || workers < 2 || workers > numLayers)
    throw new RangeError(
      `PrefillPool: workers must be a whole number from 2 to ${numLayers}, the layers of the model, got ${workers}`,
    );
  checkPositiveInt('PrefillPool', 'promptTokens', promptTokens);
  const backend = tf.getBackend();
  if (backend !== 'wasm' && backend !== 'cpu')
    throw new RangeError(`PrefillPool: needs backend wasm or cpu, got ${backend}, which is parallel by itself`);
}

const layersIn = ({ from, to }: LayerRange) => (to - from === 1 ? `layer ${from}` : `layers ${from} to ${to - 1}`);

/** Copies of the weights of some layers. */
async function weightsOf(model: CausalLM, range: LayerRange): Promise<StageStart['weights'] & Map<string, Weight>> {
  const weights = new Map<string, Weight>();
  for (const [name, weight] of model.weights)
    if (isOfLayers(range, name)) weights.set(name, { shape: weight.shape, data: await copyOf(weight) });
  return weights;
}

/** Copies of the packed ones. */
async function packedOf(model: CausalLM, range: LayerRange): Promise<PackedArrays> {
  const packed = new Map<string, PackedMatrix>();
  for (const [name, weight] of model.packed) if (isOfLayers(range, name)) packed.set(name, await packedMatrix(weight));
  return packed;
}

interface Weight {
  shape: number[];
  data: Float32Array;
}
