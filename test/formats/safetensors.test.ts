import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from '../../src/formats/float16.js';
import {
  readSafetensors,
  readShardIndex,
  SafetensorsError,
  safetensorsParts,
  type TensorToWrite,
  tensorToFloat32,
  writeSafetensors,
} from '../../src/formats/safetensors.js';

const shapes = fc.array(fc.nat(4), { maxLength: 3 });
const kinds = { F32: Float32Array, BF16: Uint16Array, F16: Uint16Array, I32: Int32Array, U8: Uint8Array } as const;

const tensor: fc.Arbitrary<TensorToWrite> = fc
  .tuple(shapes, fc.constantFrom(...(Object.keys(kinds) as (keyof typeof kinds)[])), fc.infiniteStream(fc.integer()))
  .map(([shape, dtype, numbers]) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const bits = Int32Array.from({ length: count }, () => numbers.next().value as number);
    const data = dtype === 'F32' ? new Float32Array(bits.buffer) : new kinds[dtype](bits); // any bits, NaNs too
    return { dtype, shape, data };
  });
const files = fc.record({
  tensors: fc.dictionary(
    fc.string({ unit: 'grapheme' }).filter((name) => name !== '__metadata__'),
    tensor,
    { maxKeys: 5 },
  ),
  metadata: fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), { maxKeys: 3 }),
});
const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView) => [
  ...new Uint8Array(buffer, byteOffset, byteLength),
];
const write = (f: { tensors: Record<string, TensorToWrite>; metadata?: Record<string, string> }) =>
  writeSafetensors(new Map(Object.entries(f.tensors)), f.metadata);

test('what is written is read back bit by bit, at any alignment of the bytes', () => {
  fc.assert(
    fc.property(files, fc.nat(9), (file, shift) => {
      const bytes = write(file);
      const shifted = new Uint8Array(bytes.length + shift).subarray(shift);
      shifted.set(bytes);
      const back = readSafetensors(shifted);
      expect(back.metadata).toEqual({ format: 'pt', ...file.metadata });
      expect(new Set(back.tensors.keys())).toEqual(new Set(Object.keys(file.tensors)));
      for (const [name, { dtype, shape, data }] of Object.entries(file.tensors)) {
        const got = back.tensors.get(name)!;
        expect({ ...got, data: bytesOf(got.data) }).toEqual({ dtype, shape, data: bytesOf(data) });
      }
    }),
    { numRuns: 200 },
  );
});

test('the layout: header a multiple of 8, wide elements first, then by name; pieces equal the whole', () => {
  const one = (dtype: TensorToWrite['dtype'], data: TensorToWrite['data']): TensorToWrite => ({
    dtype,
    shape: [1],
    data,
  });
  const tensors = new Map([
    ['z', one('U8', Uint8Array.of(1))],
    ['b', one('F32', Float32Array.of(2))],
    ['a', one('BF16', Float32Array.of(3))],
    ['a2', one('I32', Int32Array.of(4))],
  ]);
  const bytes = writeSafetensors(tensors);
  expect([...readSafetensors(bytes).tensors.keys()]).toEqual(['a2', 'b', 'a', 'z']);
  expect(new DataView(bytes.buffer).getBigUint64(0, true) % 8n).toBe(0n);
  expect(safetensorsParts(tensors).flatMap((part) => [...part])).toEqual([...bytes]);
});

test('a file cut anywhere or with bytes added is refused', () => {
  fc.assert(
    fc.property(files, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (file, cut) => {
      const bytes = write(file);
      expect(() => readSafetensors(bytes.subarray(0, Math.floor(cut * bytes.length)))).toThrow(SafetensorsError);
      expect(() => readSafetensors(Uint8Array.of(...bytes, 0))).toThrow('too long');
    }),
    { numRuns: 200 },
  );
});

test('a header with any byte changed is refused in our words, or still describes the data exactly', () => {
  fc.assert(
    fc.property(files, fc.nat(), fc.integer({ min: 1, max: 255 }), (file, position, flip) => {
      const bytes = write(file);
      const headerEnd = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
      bytes[position % headerEnd] ^= flip;
      try {
        const sizes = [...readSafetensors(bytes).tensors.values()].map(({ data }) => data.byteLength);
        expect(sizes.reduce((a, b) => a + b, 0)).toBe(bytes.length - headerEnd);
      } catch (error) {
        expect(error).toBeInstanceOf(SafetensorsError);
      }
    }),
    { numRuns: 500 },
  );
});

describe('a false header is refused', () => {
  const file = (header: string, data = 0) => {
    const json = new TextEncoder().encode(header);
    const bytes = new Uint8Array(8 + json.length + data);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
    bytes.set(json, 8);
    return bytes;
  };
  const u8 = (begin: number, end: number, extra = '') =>
    `{"dtype":"U8","shape":[${end - begin}],"data_offsets":[${begin},${end}]${extra}}`;
  test.each([
    ['gap', `{"a":${u8(0, 2)},"b":${u8(3, 4)}}`, 4, 'b starts at byte 3 of the data, expected 2 (gap)'],
    ['leading gap', `{"a":${u8(1, 2)}}`, 2, 'a starts at byte 1 of the data, expected 0 (gap)'],
    ['overlap', `{"a":${u8(0, 2)},"b":${u8(1, 3)}}`, 3, 'b starts at byte 1 of the data, expected 2 (overlap)'],
    ['trailing bytes', `{"a":${u8(0, 2)}}`, 3, 'describes 2 bytes of data, the file has 3; it is too long'],
    ['cut data', `{"a":${u8(0, 2)}}`, 1, 'describes 2 bytes of data, the file has 1; it is cut short'],
    ['same name twice', `{"a":${u8(0, 1)},"a":${u8(1, 2)}}`, 2, 'the header names "a" twice'],
    ['same name twice, escaped', `{"a":${u8(0, 1)},"\\u0061":${u8(1, 2)}}`, 2, 'the header names "a" twice'],
    ['same field twice', `{"a":${u8(0, 1, ',"dtype":"U8"')}}`, 1, 'the header names "dtype" twice'],
    ['unknown field', `{"a":${u8(0, 1, ',"x":1')}}`, 1, 'a must have dtype, shape and data_offsets, got'],
    ['unknown dtype', '{"a":{"dtype":"F8","shape":[1],"data_offsets":[0,1]}}', 1, 'a: dtype must be one of F64'],
    ['inherited dtype', '{"a":{"dtype":"toString","shape":[1],"data_offsets":[0,1]}}', 1, 'got "toString"'],
    [
      'size',
      '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
      4,
      'F32 of shape [2] takes 8 bytes, data_offsets give 4',
    ],
    [
      'huge shape',
      '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}',
      0,
      'data_offsets give 0',
    ],
    [
      'negative shape',
      '{"a":{"dtype":"U8","shape":[-1,-1],"data_offsets":[0,1]}}',
      1,
      'a shape is a list of integers >= 0',
    ],
    ['fractional offset', '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0.5,1.5]}}', 2, 'two integers >= 0'],
    ['backward offsets', '{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}', 1, 'data_offsets give -1'],
    ['list', '[]', 0, 'must begin with {'],
    ['leading space', ' {}', 0, 'must begin with {'],
    ['not JSON', '{"a":}', 0, 'not valid JSON'],
    ['metadata numbers', '{"__metadata__":{"a":1}}', 0, '__metadata__ must map names to strings, got {"a":1}'],
  ])('%s', (_, header, data, words) => {
    expect(() => readSafetensors(file(header, data))).toThrow(words);
    expect(() => readSafetensors(file(header, data))).toThrow(SafetensorsError);
  });

  test('lengths and encodings', () => {
    expect(() => readSafetensors(new Uint8Array(7))).toThrow('at least 8 bytes, got 7');
    const long = file('{}');
    new DataView(long.buffer).setBigUint64(0, 2n ** 63n, true);
    expect(() => readSafetensors(long)).toThrow('at most 100000000 bytes, got 9223372036854775808');
    new DataView(long.buffer).setBigUint64(0, 3n, true);
    expect(() => readSafetensors(long)).toThrow('the header takes 3 bytes, the file has 2');
    const invalid = file('{"a":1}');
    invalid[10] = 0xff;
    expect(() => readSafetensors(invalid)).toThrow('not UTF-8');
  });

  test('an empty file of tensors is fine, and so is "__proto__" as a name', () => {
    expect(readSafetensors(file('{}')).tensors.size).toBe(0);
    expect([...readSafetensors(file(`{"__proto__":${u8(0, 1)}}`, 1)).tensors.keys()]).toEqual(['__proto__']);
  });
});

test('tensors that do not fit their description are not written', () => {
  const put =
    (t: object, name = 'w') =>
    () =>
      writeSafetensors(new Map([[name, t as TensorToWrite]]));
  expect(put({ dtype: 'F32', shape: [2], data: new Float32Array(3) })).toThrow('w: shape [2] has 2 elements, got 3');
  expect(put({ dtype: 'I32', shape: [2], data: new Float32Array(2) })).toThrow(
    'w: I32 needs Int32Array, got Float32Array',
  );
  expect(put({ dtype: 'F8', shape: [2], data: new Uint8Array(2) })).toThrow('F32, BF16, F16, I32 or U8');
  expect(put({ dtype: 'U8', shape: [-2], data: new Uint8Array(2) })).toThrow('integers >= 0, got [-2]');
  expect(put({ dtype: 'U8', shape: [0], data: new Uint8Array(0) }, '__metadata__')).toThrow('reserved');
  expect(put({ dtype: 'U8', shape: [0], data: new Uint8Array(0) }, 'a\ud800')).toThrow('well-formed');
});

test('files of another program are read: golden vectors', () => {
  const { tensors } = readSafetensors(readFileSync('test/golden/gla_1.safetensors'));
  const manifest = JSON.parse(readFileSync('test/golden/manifest.json', 'utf8')) as { files?: unknown };
  expect(JSON.stringify(manifest)).toContain('gla_1.safetensors');
  for (const [name, { dtype, shape, data }] of tensors) {
    expect(data.length, name).toBe(shape.reduce((a, b) => a * b, 1));
    if (dtype === 'F32') expect([...(data as Float32Array)].every(Number.isFinite), name).toBe(true);
  }
  expect(tensors.size).toBeGreaterThan(4);
});

test('a shard index names each shard, and only files of its own folder', () => {
  const shards = { weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' } };
  expect([...readShardIndex(JSON.stringify(shards))]).toEqual(Object.entries(shards.weight_map));
  expect(() => readShardIndex('{"weight_map":{"a":"../x.safetensors"}}')).toThrow(
    'same folder, got "../x.safetensors"',
  );
  expect(() => readShardIndex('{}')).toThrow('weight_map');
});

describe('16-bit floats', () => {
  const allBits = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const forms = [
    { name: 'bfloat16', encode: float32ToBfloat16, decode: bfloat16ToFloat32, maxBits: 0x7f80 },
    { name: 'float16', encode: float32ToFloat16, decode: float16ToFloat32, maxBits: 0x7c00 },
  ];
  test.each(forms)('$name: all 65536 values survive the way through float32', ({ encode, decode, maxBits }) => {
    const back = encode(decode(allBits));
    const nan = (bits: number) => (bits & 0x7fff) > maxBits;
    expect([...allBits].filter((bits) => (nan(bits) ? !nan(back[bits]) : back[bits] !== bits))).toEqual([]);
  });

  test('float16 decodes as the standard says', () => {
    const known = {
      0: 0,
      1: 2 ** -24,
      15360: 1,
      13653: 0.333251953125,
      31743: 65504,
      49152: -2,
      31744: Infinity,
      1024: 2 ** -14,
    };
    for (const [bits, value] of Object.entries(known)) expect(float16ToFloat32(Uint16Array.of(+bits))[0]).toBe(value);
    expect(Object.is(float16ToFloat32(Uint16Array.of(0x8000))[0], -0)).toBe(true);
  });

  test.each(forms)('$name rounds to the nearest value, ties to the even one', ({ encode, decode, maxBits }) => {
    // oracle: of the two neighbours (as bits of the magnitude) take the nearer one in exact double arithmetic
    const values = decode(Uint16Array.from({ length: maxBits }, (_, i) => i)); // ascending, finite, non-negative
    const overflow = 2 * values[maxBits - 1] - values[maxBits - 2]; // the value that would come next
    const float32 = fc.oneof(
      fc.float({ noNaN: true, noDefaultInfinity: true }),
      fc.tuple(fc.nat(maxBits - 2), fc.constantFrom(0.5, 0.49999, 0.50001, 0.25)).map(([i, part]) => {
        return Math.fround(values[i] + part * (values[i + 1] - values[i]));
      }),
    );
    fc.assert(
      fc.property(float32, fc.boolean(), (x, negative) => {
        const magnitude = Math.abs(x);
        let low = 0;
        for (let step = 32768; step >= 1; step /= 2)
          if (low + step < maxBits && values[low + step] <= magnitude) low += step;
        const next = low + 1 < maxBits ? values[low + 1] : overflow;
        const [below, above] = [magnitude - values[low], next - magnitude];
        const up = below > above || (below === above && low % 2 === 1);
        const want = magnitude === values[low] ? low : low + (up ? 1 : 0);
        const got = encode(Float32Array.of(negative ? -magnitude : magnitude))[0];
        expect(got).toBe(want | (negative ? 0x8000 : 0));
      }),
      { numRuns: 2000 },
    );
  });

  test('writing rounds, reading gives float32 again', () => {
    const data = Float32Array.of(1, 1 / 3, -0, 1e-30, Infinity);
    for (const dtype of ['BF16', 'F16'] as const) {
      const file = readSafetensors(writeSafetensors(new Map([['w', { dtype, shape: [5], data }]])));
      const back = tensorToFloat32('w', file.tensors.get('w')!);
      back.forEach((value, i) => {
        if (Number.isFinite(data[i]))
          expect(Math.abs(value - data[i])).toBeLessThanOrEqual(Math.abs(data[i]) / 256 + 1e-30);
        else expect(value).toBe(data[i]);
      });
    }
    expect(() => tensorToFloat32('n', { dtype: 'I32', shape: [1], data: Int32Array.of(1) })).toThrow('n must be F32');
  });
});
