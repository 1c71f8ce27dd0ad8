import { CairnError, hasCode, type Logger, type Runtime } from '@cairn/base';
import { FENCE_RECORDS, type WalStore } from './wal.ts';
import { DeposedError, WrongTailError } from './wal-errors.ts';
import { decodeRecord, encodeRecord } from './wal-record.ts';

/** Subject of fences; data never uses it. */
export const FENCE_SUBJECT = 'fence';

const RETRY_FIRST_MS = 5;
const RETRY_MAX_MS = 1000;
const NOTHING = new Uint8Array(0);

interface TakeOverOptions {
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly signal?: AbortSignal;
}

/**
 * Appends the fence of `epoch` and resolves with its sequence (of the last copy). Only this record may be
 * tried again with a new tail, and only after the log was read from the first tail it was tried with: an earlier try may have succeeded.
 * DeposedError when the log carries this epoch already, or a higher one.
 */
export async function takeOver(store: WalStore, channel: string, epoch: number, options: TakeOverOptions): Promise<number> {
  const { runtime, logger, signal } = options;
  const fence = encodeRecord('fence', epoch, 0, NOTHING);
  let firstTried: number | undefined;
  for (let delay = RETRY_FIRST_MS; ; delay = Math.min(delay * 2, RETRY_MAX_MS)) {
    if (signal?.aborted) throw new CairnError('Cancelled', `channel ${channel}: take-over of epoch ${epoch} was cancelled`);
    try {
      const { firstSequence, lastSequence } = await store.state(channel);
      if (firstTried === undefined) await refuseOldEpoch(store, channel, epoch, firstSequence, lastSequence);
      else {
        const found = await findOwnFence(store, channel, epoch, firstTried + 1, lastSequence);
        if (found !== undefined) return found;
      }
      firstTried ??= lastSequence;
      return await store.appendFence(channel, FENCE_SUBJECT, fence, lastSequence);
    } catch (error) {
      const moved = error instanceof WrongTailError;
      if (!moved && !hasCode(error, 'StoreUnavailable', 'Timeout', 'Unavailable')) throw error;
      // A tail that moved means an old owner that still writes: race it again at once, it has to be overtaken between two of its records.
      if (moved) continue;
      logger.warn({ channel, epoch, error }, 'take-over waits for the write-ahead log');
      await runtime.sleep(delay * (0.5 + runtime.random() / 2), signal);
    }
  }
}

/** The last record carries the highest epoch of the log: what a deposed owner had in flight cannot land behind a fence. */
async function refuseOldEpoch(store: WalStore, channel: string, epoch: number, first: number, last: number): Promise<void> {
  if (last < first) return;
  for await (const batch of store.read(channel, { from: last, to: last })) {
    for (const stored of batch) {
      const record = decodeRecord(channel, stored);
      if (record.epoch >= epoch) throw new DeposedError(channel, epoch, `epoch ${record.epoch} stands at ${record.sequence} already`);
    }
  }
}

/** Sequence of the last copy of this owner's fence in from..to, if an earlier try wrote it. */
async function findOwnFence(store: WalStore, channel: string, epoch: number, from: number, to: number): Promise<number | undefined> {
  if (to < from) return undefined;
  for await (const batch of store.read(channel, { from, to })) {
    for (const stored of batch) {
      const record = decodeRecord(channel, stored);
      if (record.epoch > epoch) throw new DeposedError(channel, epoch, `epoch ${record.epoch} stands at ${record.sequence}`);
      if (record.epoch === epoch) return record.sequence + FENCE_RECORDS - 1;
    }
  }
  return undefined;
}
