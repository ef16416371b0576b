/** JSON files that carry the sha256 of their own text as their last entry, so that any changed byte shows. */
import { sumOf } from './files.js';

/** `value` as readable JSON with `"sha256"` as its last entry. @throws TypeError for numbers JSON has no word for */
export function sealJson(value: object): string {
  const body = JSON.stringify(value, refuseNonFinite, 2);
  if (body === '{}' || !body.startsWith('{')) throw new TypeError('sealJson: expected an object with entries');
  const head = body.slice(0, -'\n}'.length);
  return `${head},\n  "sha256": "${sumOf(head).sha256}"\n}\n`;
}

/** The object of a sealed text, or undefined when a single byte differs from what was written. */
export function openSealed(bytes: Uint8Array): Record<string, unknown> | undefined {
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
  const seal = /,\n {2}"sha256": "([0-9a-f]{64})"\n\}\n$/.exec(text);
  if (!seal) return undefined;
  // over the bytes, not the decoded text: decoding may map different bytes to one text
  const head = bytes.subarray(0, bytes.length - seal[0].length);
  if (sumOf(head).sha256 !== seal[1]) return undefined;
  const { sha256: _, ...value } = JSON.parse(text) as Record<string, unknown>;
  return value;
}

function refuseNonFinite(key: string, value: unknown): unknown {
  if (typeof value === 'number' && !Number.isFinite(value))
    throw new TypeError(`sealJson: ${key} is ${value}, which JSON cannot hold; leave it out or write it as text`);
  return value;
}
