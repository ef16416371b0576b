import { doctor, formatDoctor } from '../backend/doctor.js';
import { type BackendName, useBackend } from '../backend/useBackend.js';

/** `seqmix doctor`. */
export async function runDoctor({ backend, json }: { backend: BackendName; json: boolean }): Promise<number> {
  await useBackend(backend);
  const report = await doctor();
  console.log(json ? JSON.stringify(report, null, 2) : formatDoctor(report));
  return 0;
}
