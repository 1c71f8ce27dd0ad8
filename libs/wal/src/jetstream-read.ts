import { CairnError } from '@cairn/base';
import { asWalError, type ChannelStream } from './jetstream-connection.ts';
import type { ReadOptions, StoredRecord } from './wal.ts';
import { storeUnavailable, TrimmedError } from './wal-errors.ts';

const PAGE_RECORDS = 1024;
/** Well below what a server lets wait for one client before it calls it slow and cuts it off. */
const PAGE_BYTES = 4 << 20;
const RETRY_FIRST_MS = 5;
const RETRY_MAX_MS = 250;

/**
 * `WalStore.read` by batched direct gets. Any replica may answer, one that lags too: the tail comes from the stream's leader, and records
 * that a replica does not have yet are asked for again, until the request timeout. Subjects are filtered here, since "no such record" from a
 * replica that lags would be believed otherwise.
 */
export async function* readStream(stream: ChannelStream, options: ReadOptions): AsyncGenerator<readonly StoredRecord[]> {
  const { runtime, channel, connection } = stream;
  const { firstSequence, lastSequence } = await stream.state();
  const to = Math.min(options.to ?? lastSequence, lastSequence);
  let next = options.from;
  if (next <= to && next < firstSequence) throw new TrimmedError(channel, next, firstSequence);
  let waitUntil = runtime.monotonic() + connection.requestTimeoutMs;
  for (let delay = RETRY_FIRST_MS; next <= to; ) {
    if (options.signal?.aborted) throw new CairnError('Cancelled', `reading channel ${channel} was cancelled`);
    const page = await readPage(stream, next, to);
    if (page.length === 0 || page[0].sequence !== next) {
      const state = await stream.state();
      if (next < state.firstSequence) throw new TrimmedError(channel, next, state.firstSequence);
      if (runtime.monotonic() > waitUntil) throw storeUnavailable(channel, `read of ${next} (of ${to})`);
      await runtime.sleep(delay, options.signal);
      delay = Math.min(delay * 2, RETRY_MAX_MS);
      continue;
    }
    for (const [at, record] of page.entries()) {
      if (record.sequence !== next + at)
        throw new CairnError('ObjectDamaged', `channel ${channel}: record ${next + at} is missing before ${record.sequence}`);
    }
    next += page.length;
    delay = RETRY_FIRST_MS;
    waitUntil = runtime.monotonic() + connection.requestTimeoutMs;
    const wanted = options.subjects;
    const records = wanted ? page.filter((record) => wanted.includes(record.subject)) : page;
    if (records.length > 0) yield records;
  }
}

/** One batched get from `next` on; empty when the replica that answers has none of them. */
async function readPage(stream: ChannelStream, next: number, to: number): Promise<StoredRecord[]> {
  const { connection, runtime, channel } = stream;
  const page: StoredRecord[] = [];
  try {
    const batch = await connection.manager.direct.getBatch(stream.stream, {
      seq: next,
      batch: Math.min(PAGE_RECORDS, to - next + 1),
      max_bytes: PAGE_BYTES,
    });
    // A server that dies in the middle of a batch ends nothing by itself.
    const deadline = runtime.after(connection.requestTimeoutMs, () =>
      batch.stop(new Error(`no end of the batch after ${connection.requestTimeoutMs} ms`)),
    );
    try {
      for await (const message of batch) {
        if (message.seq > to) break;
        page.push({ sequence: message.seq, subject: message.subject.slice(stream.subjectPrefix.length), bytes: message.data });
      }
    } finally {
      deadline.cancel();
    }
  } catch (error) {
    if (isNothingThere(error)) return page;
    if (page.length > 0) return page;
    throw asWalError(error, channel, 'read');
  }
  return page;
}

function isNothingThere(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 404;
}
