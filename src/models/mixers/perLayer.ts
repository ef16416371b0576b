/** The mixers of a model config: one entry per layer out of a list that is repeated, and options shared by type. */
import { formatPath, type Problem } from '../../config/problems.js';
import { lenientParse, type Path } from '../../config/schemaWalk.js';
import { type MixerConfig, type MixerType, settingsOf } from './index.js';
import type { MixerSettings, ModelWide } from './mixer.js';

/** What a model config says of its mixers; anything may be wrong in it. */
export interface MixersInput {
  mixers?: readonly unknown[];
  mixerDefaults?: Readonly<Record<string, unknown>>;
}

/** One complete mixer per layer, of a config without problems. */
export function resolveMixers(input: MixersInput, model: ModelWide & { numLayers: number }): MixerConfig[] {
  return mixerOptions(input, model.numLayers).map(({ options }) => {
    const { schema, resolve } = settingsOf(options.type) as MixerSettings;
    return resolve(schema.parse(options), model) as MixerConfig;
  });
}

/** The rules across settings that mixers break. `model` is what of its config is right; `at` is put before each path. */
export function mixerProblems(
  input: MixersInput,
  model: Partial<ModelWide> & { numLayers?: number },
  at: Path,
): Problem[] {
  const problems: Problem[] = [];
  const seen = new Set<string>();
  const pattern = Array.isArray(input.mixers) ? input.mixers.length : 1;
  for (const { options, index } of mixerOptions(input, Math.min(model.numLayers ?? pattern, pattern))) {
    const settings = settingsOf(options.type);
    const mixer = settings && lenientParse(settings.schema, options);
    if (!mixer) continue;
    for (const [key, fault] of settings.rules(mixer, model)) {
      const path = formatPath([...at, ...placeOf(input, options.type as MixerType, index, key)]);
      if (!seen.has(path + fault)) problems.push({ path, message: fault });
      seen.add(path + fault);
    }
  }
  return problems;
}

/** Where a setting of a layer was written; where it could be when it was not. */
function placeOf(input: MixersInput, type: MixerType, index: number, key: string): Path {
  const given = (input.mixers?.[index] as Record<string, unknown> | undefined)?.[key] !== undefined;
  const shared = (input.mixerDefaults?.[type] as Record<string, unknown> | undefined)?.[key] !== undefined;
  return !given && shared ? ['mixerDefaults', type, key] : ['mixers', index, key];
}

/** The options of each layer as written: those in `mixers` over those in `mixerDefaults`; `index` is the place in `mixers`. */
function mixerOptions(input: MixersInput, layers: number): { options: Record<string, unknown>; index: number }[] {
  const pattern = Array.isArray(input.mixers) && input.mixers.length ? input.mixers : (['gla'] as const);
  return Array.from({ length: layers }, (_, layer) => {
    const index = layer % pattern.length;
    const item: unknown = pattern[index];
    const own = typeof item === 'string' ? { type: item } : ((item as object | undefined) ?? {});
    const shared = input.mixerDefaults?.[(own as { type: MixerType }).type] as object | undefined;
    return { options: { ...shared, ...own } as Record<string, unknown>, index };
  });
}
