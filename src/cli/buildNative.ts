import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** `seqmix build-native`. */
export function runBuildNative({ force }: { force: boolean }): number {
  const script = fileURLToPath(new URL('../../scripts/build-native.mjs', import.meta.url));
  return spawnSync(process.execPath, [script, ...(force ? ['--force'] : [])], { stdio: 'inherit' }).status ?? 1;
}
