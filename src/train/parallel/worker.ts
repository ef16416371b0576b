/** The thread of one replica: builds it, then answers calls of its methods. It is started by `WorkerPool` and exports nothing. */
import { useBackend } from '../../backend/useBackend.js';
import { AdamW } from '../../chunked/adamW/index.js';
import { createAnyModel } from '../../models/index.js';
import { answerCalls, startOf } from '../../threads/answerCalls.js';
import { momentsFrom } from '../weights.js';
import { Replica } from './replica.js';
import { SharedGradients } from './sharedGradients.js';
import type { ReplicaStart } from './start.js';

const { member, members, memory, backend, config, weights, adamW, moments, step } = startOf<ReplicaStart>().data;
const { name, ...options } = backend;
await useBackend(name, options);
const model = createAnyModel(config, { weights });
const optimizer = new AdamW(adamW);
optimizer.loadState(momentsFrom(moments, step));
const shared = new SharedGradients(model.weights, members, memory);
answerCalls(new Replica(member, model, optimizer, shared));
