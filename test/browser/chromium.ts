/** The Chromium that the tests drive, and how it is started. */
import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';

const PATHS = [
  process.env.CHROME_PATH,
  ...['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome', '/usr/bin/google-chrome-stable'],
];

/** Where a Chromium was found; undefined where there is none. */
export const chromiumPath = PATHS.find((path): path is string => path !== undefined && existsSync(path));

/** With SEQMIX_REQUIRE_BROWSER=1, as in CI, its absence is a failure and no reason to skip. */
export const browserRequired = process.env.SEQMIX_REQUIRE_BROWSER === '1';

export const REMEDY = 'no Chromium found; install one (apt-get install chromium), or name it by CHROME_PATH';

/** Headless and offline, with a profile of its own. WebGPU runs on SwiftShader, on the CPU, so that no GPU is needed. */
export function launchChromium(): Promise<Browser> {
  if (!chromiumPath) throw new Error(`launchChromium: ${REMEDY}`);
  return chromium.launch({
    executablePath: chromiumPath,
    chromiumSandbox: false,
    args: [
      ...['--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update'],
      ...['--disable-sync', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan'],
    ],
  });
}
