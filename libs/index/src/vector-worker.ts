import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { parentPort, workerData } from 'node:worker_threads';
import { asCairnError } from '@cairn/base';
import { type EngineTask, VectorEngine } from './vector-engine.ts';

/** Entry of a worker thread: one task at a time, its answer, the next. */
const engine = new VectorEngine(workerData.openLimit as number);
const port = parentPort;
if (!port) throw new Error('vector-worker.ts runs as a worker thread only');

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
    port.postMessage(
      { result },
      hits ? [hits.rows.buffer as ArrayBuffer, hits.scores.buffer as ArrayBuffer, hits.counts.buffer as ArrayBuffer] : [],
    );
  } catch (error) {
    const { codeName, message } = asCairnError(error);
    port.postMessage({ codeName, message });
  }
});
