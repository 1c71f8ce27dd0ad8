import { CairnError, type Runtime } from '@cairn/base';
import type { QueryResult, ShardQueryRequest, WriteRequest, WriteResponse } from '@cairn/proto/cairn/services';
import type { CallContext } from '@cairn/rpc';
import type { StreamingCatalog } from './catalog-face.ts';
import type { ChannelLog } from './channel-log.ts';
import type { IdReserve } from './coordinator.ts';
import { type KeyWatch, KeyWatches } from './key-watch.ts';
import { decodeWrite, type LogWrite, RecordDrafts } from './log-write.ts';
import { writeSeconds, writtenBytes, writtenRows } from './measures.ts';
import { PartialUpdates } from './partial-update.ts';
import { PendingWrite } from './pending-write.ts';
import type { StreamingSettings } from './settings.ts';
import type { Shard } from './shard.ts';
import type { Stamper } from './stamper.ts';
import { within } from './waiting.ts';
import { checkWrite } from './write-check.ts';

export interface WriteIntakeOptions {
  readonly catalog: StreamingCatalog;
  readonly stamper: Stamper;
  readonly rowIds: IdReserve;
  readonly runtime: Runtime;
  readonly settings: StreamingSettings;
  /** Bytes of rows in memory, of all channels of the node. */
  growingBytes(): number;
  /** Reads of this channel's shards, for partial updates. */
  query(request: ShardQueryRequest, context: CallContext): Promise<QueryResult>;
}

/** Where writes of a channel come in: repeats are told apart, requests checked, the queue bounded, records drafted for their stamp. */
export class WriteIntake {
  readonly #options: WriteIntakeOptions;
  readonly #log: ChannelLog;
  readonly #maxPayloadBytes: number;
  /** Writes under way by shard and request id: a repeat that comes meanwhile gets the same answer. */
  readonly #open = new Map<string, Promise<WriteResponse>>();
  readonly #watches = new KeyWatches();
  readonly #partial: PartialUpdates;
  #waitingBytes = 0;
  #waitingWrites = 0;

  constructor(options: WriteIntakeOptions, log: ChannelLog, maxPayloadBytes: number) {
    this.#options = options;
    this.#log = log;
    this.#maxPayloadBytes = maxPayloadBytes;
    const { catalog, runtime } = options;
    this.#partial = new PartialUpdates({
      ...{ catalog, runtime, watches: this.#watches },
      drained: () => log.drained(),
      query: (request, context) => options.query(request, context),
      append: (shard, request, context, watch) => this.#append(shard, request, context, watch),
    });
  }

  /** Appends the write and answers when it is durable and readable. A repeat of a request id gets the first one's answer. */
  async write(shard: Shard, request: WriteRequest, context: CallContext): Promise<WriteResponse> {
    const { requestId, vchannel } = request;
    if (requestId === '') return within(this.#writeOnce(shard, request, context), context.signal, `${vchannel}: write`);
    const kept = shard.repeats.get(requestId);
    if (kept) return { ts: kept.ts, sequence: kept.sequence };
    const key = `${vchannel}/${requestId}`;
    const open = this.#open.get(key);
    if (open) return within(open, context.signal, `${vchannel}: the first write of request ${requestId}`);
    const first = this.#writeOnce(shard, request, context);
    this.#open.set(key, first);
    const forget = (): unknown => this.#open.delete(key);
    first.then(forget, forget);
    return within(first, context.signal, `${vchannel}: write`);
  }

  #writeOnce(shard: Shard, request: WriteRequest, context: CallContext): Promise<WriteResponse> {
    const { partial } = request;
    return partial ? this.#partial.write(shard, request, partial, context) : this.#append(shard, request, context, undefined);
  }

  async #append(shard: Shard, request: WriteRequest, context: CallContext, own: KeyWatch | undefined): Promise<WriteResponse> {
    const { runtime, catalog, rowIds, stamper } = this.#options;
    const arrivedMs = runtime.monotonic();
    const decoded = decodeWrite(request);
    await checkWrite(catalog, request, decoded);
    const rows = decoded.inserts.reduce((sum, part) => sum + part.batch.length, 0);
    if (rows === 0 && decoded.deletes.length === 0) return { ts: this.#log.appliedTs, sequence: this.#log.appliedSequence };
    const bytes = request.inserts.reduce((sum, part) => sum + part.columns.length, request.deletes.length);
    this.#admit(shard, bytes);
    this.#waitingBytes += bytes;
    this.#waitingWrites++;
    try {
      let rowId = rows === 0 ? 0 : await within(rowIds.take(rows), context.signal, `${shard.vchannel}: row ids`);
      const inserts = decoded.inserts.map((part) => {
        const numbered = { ...part, firstRowId: rowId };
        rowId += part.batch.length;
        return numbered;
      });
      const write: LogWrite = { ...decoded, inserts };
      const drafts = await RecordDrafts.of(request, write, this.#maxPayloadBytes, runtime);
      const pending = new PendingWrite(this.#log, write, drafts, context.signal, { watches: this.#watches, own });
      stamper.submit(pending);
      const answer = await pending.answer;
      writtenBytes.add(bytes);
      writtenRows.add(rows, { kind: 'insert' });
      writtenRows.add(request.deleteRows, { kind: 'delete' });
      writeSeconds.record((runtime.monotonic() - arrivedMs) / 1000);
      return answer;
    } finally {
      this.#waitingBytes -= bytes;
      this.#waitingWrites--;
    }
  }

  #admit(shard: Shard, bytes: number): void {
    const { settings } = this.#options;
    const refuse = (what: string): never => {
      throw new CairnError('RateLimit', `request is rejected by rate limiter, ${shard.vchannel}: ${what}, please retry later`);
    };
    if (this.#waitingWrites >= settings.maxWaitingWrites) refuse(`${this.#waitingWrites} writes wait for the log`);
    if (this.#waitingBytes > 0 && this.#waitingBytes + bytes > settings.maxWaitingBytes) {
      refuse(`${this.#waitingBytes} bytes wait for the log, ${settings.maxWaitingBytes} may`);
    }
    const growing = this.#options.growingBytes();
    if (growing > settings.maxGrowingBytes)
      refuse(
        `${growing} bytes of rows are in memory, not flushed or not served by a datanode yet, streaming.maxGrowingBytes is ${settings.maxGrowingBytes}`,
      );
  }
}
