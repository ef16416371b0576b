/** JSON Schemas of the config files, for editors: `configs/schema/*.json`, written by `npm run build:schemas`. */
import * as z from 'zod';
import { modelConfigSchema } from '../models/config.js';
import { runConfigSchema } from './runSchema.js';

/** The text of each file below `configs/schema/`. */
export function jsonSchemas(): Record<string, string> {
  const text = (schema: z.ZodType) =>
    `${JSON.stringify(z.toJSONSchema(schema, { io: 'input', target: 'draft-7' }), null, 2)}\n`;
  return { 'model.json': text(modelConfigSchema), 'run.json': text(runConfigSchema) };
}
