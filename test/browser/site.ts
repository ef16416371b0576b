/** A page with the built package in it, bundled as an application would, and the server that it comes from. */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { basename, dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Metafile } from 'esbuild';

export interface Bundle {
  /** A script whose exports become the global `page`. */
  code: string;
  metafile: Metafile;
}

/** Bundles a file of this folder for browsers, minified, with everything dropped that `sideEffects` and imports let go. */
export async function bundle(file: string): Promise<Bundle> {
  const entry = fileURLToPath(new URL(file, import.meta.url));
  const { outputFiles, metafile } = await build({
    ...{ entryPoints: [entry], bundle: true, minify: true, treeShaking: true, write: false, metafile: true },
    ...{ platform: 'browser', format: 'iife', globalName: 'page', target: 'es2022', logLevel: 'error' },
  });
  return { code: outputFiles[0].text, metafile };
}

const WASM_FOLDER = dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm'));

const HTML = '<!doctype html><title>seqmix</title><link rel="icon" href="data:,">';
const TYPES: Record<string, string> = { '.js': 'text/javascript', '.json': 'application/json' };

/** Pages served with these may share memory between threads. */
const ISOLATION = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };

/**
 * Serves on 127.0.0.1: an empty page at `/` and, with the headers that allow threads, at `/isolated`; `files` by their paths; the wasm
 * backend's files under `/wasm/`.
 */
export async function serve(files: Record<string, string | Uint8Array>): Promise<{ url: string; close: () => void }> {
  const server = createServer(({ url = '/' }, response) => {
    const answer = (type: string, body: string | Uint8Array, headers = {}) =>
      response.writeHead(200, { 'content-type': type, ...headers }).end(body);
    const name = url.slice(1);
    if (name === '') answer('text/html', HTML);
    else if (name === 'isolated') answer('text/html', HTML, ISOLATION);
    else if (name in files) answer(TYPES[extname(name)] ?? 'application/octet-stream', files[name]);
    else if (/^wasm\/[\w-]+\.wasm$/.test(name))
      answer('application/wasm', readFileSync(join(WASM_FOLDER, basename(name))));
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, close: () => void server.close() };
}
