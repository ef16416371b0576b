/**
 * The safetensors format (https://huggingface.co/docs/safetensors), over plain byte arrays: runs in Node and in the browser.
 * A file is 8 bytes (header length, little endian), a JSON header, then the tensors' bytes without a gap. Everything is checked
 * before anything is returned. Hosts are assumed little endian, as every platform of TensorFlow.js is.
 */
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from './float16.js';

/** What each dtype of the format takes per element, and how we hold it. 16-bit floats are held as their bits. */
const DTYPES = {
  F64: [8, Float64Array],
  I64: [8, BigInt64Array],
  U64: [8, BigUint64Array],
  F32: [4, Float32Array],
  I32: [4, Int32Array],
  U32: [4, Uint32Array],
  BF16: [2, Uint16Array],
  F16: [2, Uint16Array],
  I16: [2, Int16Array],
  U16: [2, Uint16Array],
  I8: [1, Int8Array],
  U8: [1, Uint8Array],
  BOOL: [1, Uint8Array],
} as const;

export type SafetensorsDtype = keyof typeof DTYPES;
export type SafetensorsData = InstanceType<(typeof DTYPES)[SafetensorsDtype][1]>;

/** One tensor of a file. `data` holds BF16 and F16 as their bits (Uint16Array); `tensorToFloat32` gives numbers. */
export interface SafeTensor {
  dtype: SafetensorsDtype;
  shape: number[];
  data: SafetensorsData;
}

/** A tensor to be written. Float32Array data may be given for BF16 and F16 too: it is rounded to nearest even. */
export interface TensorToWrite {
  dtype: 'F32' | 'BF16' | 'F16' | 'I32' | 'U8';
  shape: readonly number[];
  data: Float32Array | Uint16Array | Int32Array | Uint8Array;
}

export interface SafetensorsFile {
  tensors: Map<string, SafeTensor>;
  metadata: Record<string, string>;
}

/** The bytes are not a safetensors file, or the tensors cannot be written as one. */
export class SafetensorsError extends Error {
  override readonly name = 'SafetensorsError';
}

const METADATA = '__metadata__';
/** As the reference implementation: a longer header is taken for garbage. */
const MAX_HEADER_BYTES = 100_000_000;

/**
 * A safetensors file as one array of bytes. Tensors are ordered by falling element size, then by name, so that each is aligned.
 * @param metadata strings put beside `format: 'pt'`, which other programs look for
 */
export function writeSafetensors(
  tensors: ReadonlyMap<string, TensorToWrite>,
  metadata: Record<string, string> = {},
): Uint8Array {
  const parts = safetensorsParts(tensors, metadata);
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

/** The same file in pieces (header, then one piece per tensor), for writing without a second copy in memory. */
export function safetensorsParts(
  tensors: ReadonlyMap<string, TensorToWrite>,
  metadata: Record<string, string> = {},
): Uint8Array[] {
  const named = [...tensors].map(([name, tensor]) => ({ name, ...tensor, bytes: tensorBytes(name, tensor) }));
  named.sort((a, b) => DTYPES[b.dtype][0] - DTYPES[a.dtype][0] || (a.name < b.name ? -1 : 1));
  const header = new Map<string, unknown>([[METADATA, { format: 'pt', ...metadata }]]);
  let offset = 0;
  for (const { name, dtype, shape, bytes } of named) {
    header.set(name, { dtype, shape, data_offsets: [offset, offset + bytes.length] });
    offset += bytes.length;
  }
  return [encodeHeader(header), ...named.map(({ bytes }) => bytes)];
}

function tensorBytes(name: string, { dtype, shape, data }: TensorToWrite): Uint8Array {
  const fail = (message: string) => new SafetensorsError(`writeSafetensors: ${name}: ${message}`);
  if (name === METADATA) throw fail('the name is reserved');
  if (/\p{Surrogate}/u.test(name)) throw fail('the name is not well-formed Unicode');
  if (!shape.every((n) => Number.isSafeInteger(n) && n >= 0))
    throw fail(`a shape is a list of integers >= 0, got [${shape}]`);
  const count = shape.reduce((product, n) => product * n, 1);
  if (data.length !== count) throw fail(`shape [${shape}] has ${count} elements, got ${data.length}`);
  const stored = encodeData(dtype, data);
  const Kind = DTYPES[dtype]?.[1];
  if (!Kind || !(stored instanceof Kind))
    throw fail(`${dtype} needs ${Kind?.name ?? 'F32, BF16, F16, I32 or U8'}, got ${data.constructor.name}`);
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}

function encodeData(dtype: TensorToWrite['dtype'], data: TensorToWrite['data']): TensorToWrite['data'] {
  if (!(data instanceof Float32Array)) return data;
  if (dtype === 'BF16') return float32ToBfloat16(data);
  return dtype === 'F16' ? float32ToFloat16(data) : data;
}

/** Length and JSON, padded with spaces so that the tensors start at a multiple of 8. */
function encodeHeader(header: Map<string, unknown>): Uint8Array {
  const entries = [...header].map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const json = new TextEncoder().encode(`{${entries.join(',')}}`);
  const length = Math.ceil(json.length / 8) * 8;
  if (length > MAX_HEADER_BYTES)
    throw new SafetensorsError(
      `writeSafetensors: the header takes ${length} bytes, at most ${MAX_HEADER_BYTES} are allowed`,
    );
  const out = new Uint8Array(8 + length).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(length), true);
  out.set(json, 8);
  return out;
}

/**
 * Reads and checks a whole file: header, names, dtypes, shapes, and that the tensors fill the data exactly, without gap or overlap.
 * @returns tensors in the order of their data. Their data are views of `bytes` where the alignment allows it, copies otherwise.
 * @throws SafetensorsError saying what was expected and what came
 */
export function readSafetensors(bytes: Uint8Array): SafetensorsFile {
  const { header, dataStart } = readHeader(bytes);
  const metadata = readMetadata(header);
  const entries = Object.entries(header).filter(([name]) => name !== METADATA);
  const infos = entries
    .map(([name, info]) => checkEntry(name, info))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const { name, begin, end } of infos) {
    if (begin !== at)
      throw bad(`${name} starts at byte ${begin} of the data, expected ${at} (${begin < at ? 'overlap' : 'gap'})`);
    at = end;
  }
  const given = bytes.length - dataStart;
  if (at !== given)
    throw bad(
      `the header describes ${at} bytes of data, the file has ${given}; it is ${given < at ? 'cut short' : 'too long'}`,
    );
  const tensors = new Map(infos.map((info) => [info.name, view(bytes, dataStart, info)]));
  return { tensors, metadata };
}

function readHeader(bytes: Uint8Array): { header: Record<string, unknown>; dataStart: number } {
  if (bytes.length < 8) throw bad(`a file has at least 8 bytes, got ${bytes.length}`);
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) throw bad(`a header has at most ${MAX_HEADER_BYTES} bytes, got ${length}`);
  const dataStart = 8 + Number(length);
  if (dataStart > bytes.length)
    throw bad(`the header takes ${length} bytes, the file has ${bytes.length - 8} after its length`);
  const text = decodeUtf8(bytes.subarray(8, dataStart));
  if (!text.startsWith('{')) throw bad(`the header must begin with {, got ${JSON.stringify(text.slice(0, 20))}`);
  const header = parseJson(text) as Record<string, unknown>;
  checkUniqueKeys(text);
  return { header, dataStart };
}

function readMetadata(header: Record<string, unknown>): Record<string, string> {
  const metadata = Object.hasOwn(header, METADATA) ? header[METADATA] : {};
  if (!isRecord(metadata) || !Object.values(metadata).every((v) => typeof v === 'string'))
    throw bad(`${METADATA} must map names to strings, got ${JSON.stringify(metadata)?.slice(0, 80)}`);
  return metadata as Record<string, string>;
}

interface TensorInfo {
  name: string;
  dtype: SafetensorsDtype;
  shape: number[];
  begin: number;
  end: number;
}

function checkEntry(name: string, info: unknown): TensorInfo {
  const isCount = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0;
  if (!isRecord(info) || Object.keys(info).sort().join() !== 'data_offsets,dtype,shape')
    throw bad(`${name} must have dtype, shape and data_offsets, got ${JSON.stringify(info)?.slice(0, 80)}`);
  const { dtype, shape, data_offsets: offsets } = info;
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPES, dtype))
    throw bad(`${name}: dtype must be one of ${Object.keys(DTYPES).join(', ')}, got ${JSON.stringify(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isCount))
    throw bad(`${name}: a shape is a list of integers >= 0, got ${JSON.stringify(shape)}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    throw bad(`${name}: data_offsets must be two integers >= 0, got ${JSON.stringify(offsets)}`);
  const [begin, end] = offsets as [number, number];
  const size = shape.reduce((product: number, n: number) => product * n, DTYPES[dtype as SafetensorsDtype][0]);
  if (end - begin !== size)
    throw bad(`${name}: ${dtype} of shape [${shape}] takes ${size} bytes, data_offsets give ${end - begin}`);
  return { name, dtype: dtype as SafetensorsDtype, shape, begin, end };
}

function view(bytes: Uint8Array, dataStart: number, { dtype, shape, begin, end }: TensorInfo): SafeTensor {
  const [width, Kind] = DTYPES[dtype];
  const start = bytes.byteOffset + dataStart + begin;
  const aligned = start % width === 0;
  const buffer = aligned ? bytes.buffer : bytes.slice(dataStart + begin, dataStart + end).buffer;
  return { dtype, shape, data: new Kind(buffer as ArrayBuffer, aligned ? start : 0, (end - begin) / width) };
}

/** The numbers of a float tensor as float32 (F64 is rounded). F32 data come back as they are, not copied. */
export function tensorToFloat32(name: string, { dtype, data }: SafeTensor): Float32Array {
  if (dtype === 'F32') return data as Float32Array;
  if (dtype === 'BF16') return bfloat16ToFloat32(data as Uint16Array);
  if (dtype === 'F16') return float16ToFloat32(data as Uint16Array);
  if (dtype === 'F64') return Float32Array.from(data as Float64Array);
  throw new SafetensorsError(`tensorToFloat32: ${name} must be F32, BF16, F16 or F64, got ${dtype}`);
}

/** Which shard of a split checkpoint holds each tensor: the content of `model.safetensors.index.json`. */
export function readShardIndex(json: string): Map<string, string> {
  const index = parseJson(json, 'readShardIndex');
  const weightMap = isRecord(index) ? index.weight_map : undefined;
  if (!isRecord(weightMap)) throw bad('expected an object with weight_map', 'readShardIndex');
  const shards = Object.entries(weightMap);
  for (const [name, file] of shards)
    if (typeof file !== 'string' || !/^[^/\\]+\.safetensors$/.test(file))
      throw bad(
        `${name}: a shard is a .safetensors file of the same folder, got ${JSON.stringify(file)}`,
        'readShardIndex',
      );
  return new Map(shards as [string, string][]);
}

/** JSON.parse keeps the last of two equal keys without a word, so keys are counted here. `text` is valid JSON. */
function checkUniqueKeys(text: string): void {
  const open: (Set<string> | null)[] = []; // keys of each open object, null for lists
  for (const [token, colon] of text.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g)) {
    if (token === '{') open.push(new Set());
    else if (token === '[') open.push(null);
    else if (token === '}' || token === ']') open.pop();
    else if (colon !== undefined) {
      const key = JSON.parse(token.slice(0, -colon.length)) as string;
      const keys = open.at(-1);
      if (keys?.has(key)) throw bad(`the header names ${JSON.stringify(key)} twice`);
      keys?.add(key);
    }
  }
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw bad('the header is not UTF-8 text');
  }
}

function parseJson(text: string, who?: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw bad(`not valid JSON: ${(error as Error).message}`, who);
  }
}

const isRecord = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null && !Array.isArray(x);

const bad = (message: string, who = 'readSafetensors') => new SafetensorsError(`${who}: ${message}`);
