/** All suites by name. A new one is one file and one line here. */
import { attention } from './attention.js';
import { decode } from './decode.js';
import { delta } from './delta.js';
import { gka } from './gka.js';
import { gla } from './gla.js';
import type { Suite } from './harness.js';
import { hybrid } from './hybrid.js';
import { matmulfree } from './matmulfree.js';
import { prefill } from './prefill.js';
import { ssm } from './ssm.js';
import { startup } from './startup.js';
import { train } from './train.js';

export const suites: Record<string, Suite> = {
  gla,
  delta,
  gka,
  ssm,
  attention,
  train,
  decode,
  prefill,
  hybrid,
  matmulfree,
  startup,
};
