// A model of the quickstart's size until its first generated token.
import { readFileSync } from 'node:fs';
import { useBackend } from 'seqmix';
import { CausalLM, generate } from 'seqmix/models';

await useBackend('wasm');
const { $schema, ...config } = JSON.parse(readFileSync('configs/models/gla-tiny.json', 'utf8'));
const prompt = new TextEncoder().encode('Call me Ishmael. ');
for await (const { token } of generate(new CausalLM(config), prompt, { maxTokens: 1 }))
  process.stdout.write(`${token}\n`);
