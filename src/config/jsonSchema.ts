/** JSON Schemas of the config files, for editors: `configs/schema/*.json`, written by `npm run build:schemas`. */
import * as z from 'zod';
import { anyModelSchemas } from '../models/anyConfig.js';
import { runConfigSchema } from './runSchema.js';

/** The text of each file below `configs/schema/`. */
export function jsonSchemas(): Record<string, string> {
  const text = (schema: z.ZodType) =>
    `${JSON.stringify(z.toJSONSchema(schema, { io: 'input', target: 'draft-7' }), null, 2)}\n`;
  return { 'model.json': text(z.union(anyModelSchemas)), 'run.json': text(runConfigSchema) };
}
