/**
 * Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
 * Word i of a stream is a pure function of (key, i), so a stream's whole state is its key and one number, it can be stopped and
 * resumed anywhere, and streams split by label do not depend on how much was drawn from their parent.
 */

/** The whole state of a stream: JSON-safe. `position` counts 32-bit words drawn. */
export interface RngState {
  key: [number, number];
  position: number;
}

/** One stream of random numbers. The same seed gives the same numbers on every platform. */
export class Rng {
  readonly #key: Uint32Array;
  readonly #block = new Uint32Array(4);
  #blockIndex = -1;
  #position = 0;

  /** @param seed any string, or a finite number (`42` and `'42'` give the same stream) */
  constructor(seed: number | string) {
    if (typeof seed === 'number' && !Number.isFinite(seed))
      throw new RangeError(`Rng: seed must be finite, got ${seed}`);
    this.#key = absorb(ROOT_KEY, String(seed));
  }

  /** A new stream that depends on this stream's key and on `label` only, never on the numbers drawn so far. */
  split(label: number | string): Rng {
    return Rng.fromState({ key: pair(absorb(this.#key, `/${label}`)), position: 0 });
  }

  /** The stream that stands where `state` was taken. */
  static fromState(state: RngState): Rng {
    const rng = new Rng(0);
    rng.restore(state);
    return rng;
  }

  /** What `restore` needs to go on from here. */
  state(): RngState {
    return { key: pair(this.#key), position: this.#position };
  }

  /** Moves this stream to where `state` was taken. @throws RangeError when `state` is not a state */
  restore({ key, position }: RngState): void {
    const isWord = (n: unknown) => Number.isInteger(n) && (n as number) >= 0 && (n as number) < 2 ** 32;
    if (
      !Array.isArray(key) ||
      key.length !== 2 ||
      !key.every(isWord) ||
      !Number.isSafeInteger(position) ||
      position < 0
    )
      throw new RangeError(
        `Rng: a state is { key: [uint32, uint32], position: integer >= 0 }, got ${JSON.stringify({ key, position })}`,
      );
    this.#key.set(key);
    this.#position = position;
    this.#blockIndex = -1;
  }

  /** The next 32 random bits, as an integer in [0, 2^32). */
  uint32(): number {
    const index = Math.floor(this.#position / 4);
    if (index !== this.#blockIndex) {
      philox(this.#block, index >>> 0, Math.floor(index / 2 ** 32), 0, 0, this.#key[0], this.#key[1]);
      this.#blockIndex = index;
    }
    return this.#block[this.#position++ % 4];
  }

  /** Uniform in [0, 1), 53 bits: takes two words. */
  uniform(): number {
    const high = this.uint32() >>> 5;
    return (high * 2 ** 26 + (this.uint32() >>> 6)) * 2 ** -53;
  }

  /** A standard normal number (Box-Muller); takes four words, as every pair of `normalArray` does. */
  normal(): number {
    return this.#normalPair()[0];
  }

  /** Uniform over 0 .. n - 1 without bias (values of the incomplete last stretch are drawn again). 1 <= n <= 2^32. */
  int(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > 2 ** 32)
      throw new RangeError(`Rng.int: n must be an integer from 1 to 2^32, got ${n}`);
    const limit = 2 ** 32 - (2 ** 32 % n);
    for (;;) {
      const word = this.uint32();
      if (word < limit) return word % n;
    }
  }

  /** n normal numbers of the given standard deviation and mean 0. */
  normalArray(n: number, std = 1): Float32Array {
    const out = new Float32Array(n);
    for (let i = 0; i < n; i += 2) {
      const [a, b] = this.#normalPair();
      out[i] = a * std;
      if (i + 1 < n) out[i + 1] = b * std;
    }
    return out;
  }

  /** n numbers uniform in [low, high). */
  uniformArray(n: number, low = 0, high = 1): Float32Array {
    return Float32Array.from({ length: n }, () => low + (high - low) * this.uniform());
  }

  /** The numbers 0 .. n - 1 in random order (Fisher-Yates). */
  permutation(n: number): Uint32Array {
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.int(i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  #normalPair(): [number, number] {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform())); // 1 - u is in (0, 1]
    const angle = 2 * Math.PI * this.uniform();
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  }
}

const ROOT_KEY = Uint32Array.of(0x5e9a17c3, 0x1d2b86f5);

const pair = (key: Uint32Array): [number, number] => [key[0], key[1]];

/** Hashes a label into a key: each 16 bytes of its UTF-8 are one Philox block, whose first two words are the next key. */
function absorb(key: Uint32Array, label: string): Uint32Array {
  const bytes = new TextEncoder().encode(label);
  const padded = new DataView(new ArrayBuffer(16 * Math.ceil(bytes.length / 16)));
  new Uint8Array(padded.buffer).set(bytes);
  const out = Uint32Array.of(key[0], key[1], 0, 0);
  for (let i = 0; i < padded.byteLength; i += 16) {
    const [a, b, c, d] = [0, 4, 8, 12].map((j) => padded.getUint32(i + j, true));
    philox(out, a, b, c, d, out[0], out[1]);
  }
  philox(out, bytes.length, 0, 0, 0xffffffff, out[0], out[1]); // the length tells 'a' from 'a\0'
  return out.slice(0, 2);
}

/** Philox4x32 with 10 rounds: out = bijection of the counter (c0..c3) under the key (k0, k1). Constants as in the paper. */
export function philox(out: Uint32Array, c0: number, c1: number, c2: number, c3: number, k0: number, k1: number): void {
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(0xd2511f53, c0);
    const low0 = Math.imul(0xd2511f53, c0);
    const high1 = mulHigh(0xcd9e8d57, c2);
    const low1 = Math.imul(0xcd9e8d57, c2);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1 >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0 >>> 0;
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** The upper 32 bits of the 64-bit product of two 32-bit numbers. */
function mulHigh(a: number, b: number): number {
  const aHigh = a >>> 16;
  const aLow = a & 0xffff;
  const bHigh = b >>> 16;
  const bLow = b & 0xffff;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const cross = aLow * bHigh + (middle & 0xffff);
  return aHigh * bHigh + (middle >>> 16) + (cross >>> 16);
}
