import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { parentPort, workerData } from 'node:worker_threads';
import { asCairnError } from '@cairn/base';
import { type EngineTask, VectorEngine } from './vector-engine.ts';

/** Entry of a worker thread: one task at a time, its answer, the next. */
const engine = new VectorEngine(workerData.openLimit as number);
const port = parentPort;
if (!port) throw new Error('vector-worker.ts runs as a worker thread only');

/** Hits up to so many travel as copies. */
const COPIED_HITS = 1024;

/** A closed index stays mapped until its object is collected, and V8 sees only the object's few bytes. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

port.on('message', async (task: EngineTask) => {
  try {
    const result = await engine.run(task);
    if (result.released) collectGarbage();
    const { hits } = result;
    // A few hits are sooner copied than handed over.
    const handed = hits && hits.rows.length > COPIED_HITS ? [hits.rows.buffer, hits.scores.buffer, hits.counts.buffer] : [];
    port.postMessage({ result }, handed as ArrayBuffer[]);
  } catch (error) {
    const { codeName, message } = asCairnError(error);
    port.postMessage({ codeName, message });
  }
});
