/**
 * Which code rounds: on another build of the kernels, or with native products on instead of off, the same run gives numbers that differ
 * in their last digits. So a checkpoint says what it was made with, and a resumed run goes on with that.
 */
import { arithmeticInUse, useBackend } from '../backend/useBackend.js';
import type { RunConfig } from '../config/index.js';

type Backend = RunConfig['backend'];

const SETTINGS = ['relaxedSimd', 'native'] as const;

/**
 * Starts the backend of a run, as its checkpoint had it (`before`) where the config leaves the choice.
 * @returns the settings with `on` or `off` for what is in use on wasm, for the next checkpoint; and a line where they are not as before
 * @throws Error naming the remedy when what the checkpoint had cannot be had here
 */
export async function startBackend(
  wanted: Backend,
  before?: Backend,
): Promise<{ backend: Backend; warnings: string[] }> {
  const settings = { ...wanted };
  for (const key of SETTINGS)
    if (before?.name === wanted.name && (wanted[key] ?? 'auto') === 'auto') settings[key] = before[key];
  await useBackend(settings.name, settings).catch((error: Error) => {
    const key = SETTINGS.find((name) => settings[name] === 'on' && wanted[name] !== 'on');
    if (!key) throw error;
    throw new Error(
      `train: the checkpoint was made with ${list(settings)}; ${error.message}. Without it, the numbers from here on differ in rounding: --backend.${key}=off`,
      { cause: error },
    );
  });
  const backend = { ...wanted, ...arithmeticInUse() };
  if (!before || !differ(before, backend)) return { backend, warnings: [] };
  const warning = `not as before: ${list(backend)} (so far ${list(before)}), so numbers differ in rounding`;
  return { backend, warnings: [warning] };
}

/** A checkpoint may be silent on a setting: then there is nothing to compare. */
const differ = (before: Backend, now: Backend): boolean =>
  before.name !== now.name ||
  SETTINGS.some((key) => ['on', 'off'].includes(before[key] ?? 'auto') && before[key] !== now[key]);

const list = ({ name, ...settings }: Backend) =>
  [`backend ${name}`, ...SETTINGS.map((key) => settings[key] && `${key} ${settings[key]}`)].filter(Boolean).join(', ');
