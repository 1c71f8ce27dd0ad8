import { CompactionState } from '@cairn/proto/milvus/common';
import { GetCompactionStateRequest, type GetCompactionStateResponse } from '@cairn/proto/milvus/milvus';
import { SingleBar } from 'cli-progress';
import { printOne, type Row } from './output.ts';
import { CommandError, EXIT, must, type Session } from './session.ts';

const POLL_MS = 200;

export interface CompactionProgress {
  readonly id: bigint;
  readonly state: GetCompactionStateResponse;
}

export async function compactionState(session: Session, id: bigint): Promise<CompactionProgress> {
  const state = await session.milvus.getCompactionState(GetCompactionStateRequest.fromPartial({ compactionID: id }), session.options);
  must(state.status);
  return { id, state };
}

export function compactionRow({ id, state }: CompactionProgress): Row {
  return {
    compaction_id: String(id),
    state: state.state === CompactionState.Completed ? 'Completed' : 'Executing',
    executing: Number(state.executingPlanNo),
    completed: Number(state.completedPlanNo),
    failed: Number(state.failedPlanNo),
  };
}

/** Follows a compaction to its end, with a bar on a terminal; a plan that failed fails the command with exit code 4. */
export async function watchCompaction(session: Session, id: bigint): Promise<void> {
  const bar = process.stderr.isTTY ? new SingleBar({ format: '{bar} {value} of {total} plans', stream: process.stderr }) : undefined;
  let begun = false;
  for (;;) {
    const progress = await compactionState(session, id);
    const { state, executingPlanNo, completedPlanNo, failedPlanNo } = progress.state;
    const ended = Number(completedPlanNo + failedPlanNo);
    if (!begun) bar?.start(ended + Number(executingPlanNo), ended);
    begun = true;
    bar?.update(ended);
    if (state === CompactionState.Completed) {
      bar?.stop();
      printOne(session.format, compactionRow(progress));
      if (failedPlanNo > 0n)
        throw new CommandError(`${failedPlanNo} plans of compaction ${id} failed: they lost a race, or the log says why`, EXIT.jobFailed);
      return;
    }
    await session.runtime.sleep(POLL_MS);
  }
}
