/** One direction between neighbours in the pipeline: pieces in order, at most two of them sent and not yet taken. Node only. */
import type { MessagePort } from 'node:worker_threads';

/** Activations of one piece of the prompt, [tokens, hiddenSize]; null ends the prompt. */
export type Piece = Float32Array | null;

/** One that is being worked on would not do: the sender would wait for it. */
const SLOTS = 2;

export class Outlet {
  #free = SLOTS;
  #closed: Error | undefined;
  #wake = () => {};

  constructor(readonly port: MessagePort) {
    port.on('message', () => {
      this.#free += 1;
      this.#wake();
    });
  }

  /** Sends a piece when there is room; its memory goes along. @throws the reason of `close` */
  async send(piece: Piece): Promise<void> {
    while (this.#free === 0 && !this.#closed)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    if (this.#closed) throw this.#closed;
    this.#free -= 1;
    this.port.postMessage(piece, piece ? [piece.buffer as ArrayBuffer] : []);
  }

  close(reason: Error): void {
    this.#closed = reason;
    this.port.close();
    this.#wake();
  }
}

export class Inlet {
  readonly #pieces: Piece[] = [];
  #wake = () => {};

  constructor(readonly port: MessagePort) {
    port.on('message', (piece: Piece) => {
      this.#pieces.push(piece);
      this.#wake();
    });
  }

  /** The next piece, when it is there. */
  async take(): Promise<Piece> {
    while (this.#pieces.length === 0)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    this.port.postMessage('taken');
    return this.#pieces.shift() as Piece;
  }
}
