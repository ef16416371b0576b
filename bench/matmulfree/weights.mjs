/** The layers of the published 370M model over bytes, with random ternary weights: the same for both sides, drawn matrix by matrix. */

export const D = 1024;
export const LAYERS = 24;
export const INNER = 2816;
export const VOCABULARY = 256;

/** Four codes of two bits, each 0, 1 or 2. */
const CODES = Uint8Array.from({ length: 81 }, (_, i) =>
  [0, 1, 2, 3].reduce((byte, j) => byte | ((Math.floor(i / 3 ** j) % 3) << (2 * j)), 0),
);

/** A matrix [rows, columns] of -1, 0 and 1, four to a byte and row by row, as `seqmix pack` writes it. */
export function ternaryBytes(name, [rows, columns]) {
  const bytes = new Uint8Array((rows * columns) / 4);
  let state = 1;
  for (const letter of name) state = (Math.imul(state, 31) + letter.charCodeAt(0)) | 1;
  for (let i = 0; i < bytes.length; i++) {
    state ^= state << 13; // xorshift32
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = CODES[(state >>> 9) % 81];
  }
  return bytes;
}

/** What a matrix was multiplied by before it was rounded, such that outputs are as large as inputs. */
export const scaleOf = ([, columns]) => Math.sqrt((2 / 3) * columns);

/** Row of the table that stands for a byte: numbers from -1 to 1. */
export const embeddingAt = (id, channel) => Math.cos(id * 12.9898 + channel * 78.233);

/** Tokens that are decoded in one run. */
export const TOKENS = 4;

/** The bytes that both read. */
export const idsOf = (count) => Int32Array.from({ length: count }, (_, i) => (37 * i + 11) % VOCABULARY);

/** Shapes of the ternary matrices of a layer by their names. */
export const LAYER = {
  'attn.i_proj': [D, D],
  'attn.f_proj': [D, D],
  'attn.g_proj': [D, D],
  'attn.o_proj': [D, D],
  'mlp.gate_proj': [2 * INNER, D],
  'mlp.down_proj': [D, INNER],
};
