// Writes configs/schema/*.json from the zod schemas. Needs a build: `npm run build:schemas` makes one first.
import { mkdirSync, writeFileSync } from 'node:fs';
import { jsonSchemas } from '../dist/config/jsonSchema.js';

const folder = new URL('../configs/schema/', import.meta.url);
mkdirSync(folder, { recursive: true });
for (const [name, text] of Object.entries(jsonSchemas())) writeFileSync(new URL(name, folder), text);
