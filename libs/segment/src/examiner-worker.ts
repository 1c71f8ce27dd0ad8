import { parentPort } from 'node:worker_threads';
import { asCairnError } from '@cairn/base';
import { ExaminerLine, type ExaminerTask } from './examiner-task.ts';

/** A worker thread that hashes rows; see examiner-pool.ts. */
const line = new ExaminerLine();
const port = parentPort;
if (port === null) throw new Error('examiner-worker is started as a worker thread');

port.on('message', (task: ExaminerTask) => {
  try {
    const steps = line.run(task);
    let step = steps.next();
    while (!step.done) step = steps.next();
    port.postMessage({ result: step.value });
  } catch (error) {
    const { codeName, message } = asCairnError(error);
    port.postMessage({ codeName, message });
  }
});
