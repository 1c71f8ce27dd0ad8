import { asCairnError, CairnError, hasCode, isRetriable, type Runtime, timestampMs } from '@cairn/base';
import { expiredUpTo } from '@cairn/catalog';
import type { IndexPool } from '@cairn/index';
import {
  DataNodeDefinition,
  type QueryPlan,
  type QueryResult,
  type ReadScope,
  type SearchPlan,
  type SearchResult,
  type SegmentReadScope,
  type ShardQueryRequest,
  type ShardSearchRequest,
} from '@cairn/proto/cairn/services';
import {
  decodeQueryResult,
  decodeSearchResult,
  encodeQueryResult,
  encodeSearchResult,
  executeQuery,
  executeSearch,
  mergeHits,
  mergeRows,
  readAt,
} from '@cairn/query';
import type { CallContext, Transport } from '@cairn/rpc';
import type { CollectionSchema } from '@cairn/schema';
import type { ReadableSegment } from '@cairn/segment';
import type { StreamingCatalog } from './catalog-face.ts';
import type { ChannelOwner } from './channel-owner.ts';
import type { StampSource } from './coordinator.ts';
import { readSeconds } from './measures.ts';
import type { DataNodeInstance } from './placement.ts';
import type { Shard } from './shard.ts';
import type { ReadView, ShardView } from './shard-view.ts';
import { liveCollection } from './write-check.ts';

/** A guarantee this far ahead of the clock is waited for before the floor of stamps is raised to it: writes would wait otherwise. */
const MAX_AHEAD_MS = 500;
const RETRY_FIRST_MS = 10;
const RETRY_MAX_MS = 500;

export interface ReadHandlerOptions {
  readonly catalog: StreamingCatalog;
  readonly transport: Transport;
  readonly pool: IndexPool;
  readonly runtime: Runtime;
  readonly stamps: StampSource;
  readonly loads: {
    viewOf(shard: Shard): ShardView | undefined;
    refresh(shard: Shard): void;
    whileAlive<T>(node: DataNodeInstance, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T>;
  };
  ownerOf(vchannel: string): ChannelOwner;
  /** Monotonic ms up to which nobody else can own this node's channels. */
  leaseValidUntil(): number;
}

/** What one read found out before it reads. */
interface Reading {
  readonly shard: Shard;
  readonly view: ShardView;
  readonly schema: CollectionSchema;
  readonly scope: ReadScope;
  readonly readTs: number;
  /** Rows at or below it have outlived their time; 0: none has. */
  readonly expiredTs: number;
  readonly deleteSequence: number;
}

type ReadCall = Pick<CallContext, 'signal' | 'remaining'>;

/** How to run one kind of read and put its parts together. */
interface ReadKind<Part, Result> {
  local(segments: readonly ReadableSegment[], reading: Reading): Promise<Part>;
  remote(address: string, scope: SegmentReadScope, call: ReadCall): Promise<Result>;
  /** Exactly one datanode answered and nothing was read here: its answer as it is. */
  only(result: Result, readTs: number): Result;
  merge(local: Part | undefined, remote: readonly Result[], reading: Reading): Result | Promise<Result>;
}

/** Search and Query of a shard: growing rows here, sealed segments on datanodes, at one timestamp. */
export class ReadHandler {
  readonly #options: ReadHandlerOptions;

  constructor(options: ReadHandlerOptions) {
    this.#options = options;
  }

  async search(request: ShardSearchRequest, context: CallContext): Promise<SearchResult> {
    const { scope, plan } = request;
    if (!scope || !plan) throw new CairnError('InvalidParameter', 'search of a shard without scope or plan');
    return this.#measured('search', () => this.#read(scope, context, this.#searching(plan)));
  }

  async query(request: ShardQueryRequest, context: CallContext): Promise<QueryResult> {
    const { scope, plan } = request;
    if (!scope || !plan) throw new CairnError('InvalidParameter', 'query of a shard without scope or plan');
    return this.#measured('query', () => this.#read(scope, context, this.#querying(plan)));
  }

  async #measured<T>(kind: 'search' | 'query', work: () => Promise<T>): Promise<T> {
    const { runtime } = this.#options;
    const startedMs = runtime.monotonic();
    const result = await work();
    readSeconds.record((runtime.monotonic() - startedMs) / 1000, { kind });
    return result;
  }

  #searching(plan: SearchPlan): ReadKind<Awaited<ReturnType<typeof executeSearch>>, SearchResult> {
    const { pool, runtime, transport } = this.#options;
    return {
      local: (segments, { schema, readTs, expiredTs }) => executeSearch({ segments, schema, plan, readTs, expiredTs, pool, runtime }),
      remote: (address, scope, call) =>
        transport.client(DataNodeDefinition, address).search({ scope, plan }, { signal: call.signal, timeoutMs: call.remaining() }),
      only: readAt,
      merge: (local, remote, { schema, readTs }) => {
        const parts = [...(local ? [local] : []), ...remote.map(decodeSearchResult)];
        const options = {
          metric: plan.metric,
          nq: plan.nq,
          k: plan.topK,
          pkField: schema.primaryKey,
          groupByFieldId: plan.groupByFieldId,
          groupSize: plan.groupSize,
        };
        return encodeSearchResult(parts.length === 1 && parts[0] ? parts[0] : mergeHits(parts, options), readTs);
      },
    };
  }

  #querying(plan: QueryPlan): ReadKind<Awaited<ReturnType<typeof executeQuery>>, QueryResult> {
    const { runtime, transport } = this.#options;
    return {
      local: (segments, { schema, readTs, expiredTs }) => executeQuery({ segments, schema, plan, readTs, expiredTs, runtime }),
      remote: (address, scope, call) =>
        transport.client(DataNodeDefinition, address).query({ scope, plan }, { signal: call.signal, timeoutMs: call.remaining() }),
      only: (result, ts) => ({ ...result, ts }),
      merge: async (local, remote, { schema, readTs }) => {
        const parts = [...(local ? [local] : []), ...remote.map(decodeQueryResult)];
        const only = parts.length === 1 ? parts[0] : undefined;
        return encodeQueryResult(only ?? (await mergeRows(parts, schema.primaryKey, plan.limit, runtime)), readTs, runtime);
      },
    };
  }

  async #read<Part, Result>(scope: ReadScope, context: CallContext, kind: ReadKind<Part, Result>): Promise<Result> {
    let reading = await this.#prepare(scope, context);
    for (let delay = RETRY_FIRST_MS; ; delay = Math.min(RETRY_MAX_MS, delay * 2)) {
      const view = await reading.view.acquire(scope.partitionIds, context.signal);
      try {
        if (view.purgedTs <= reading.readTs) return await this.#readView(reading, view, context, kind);
      } catch (error) {
        // A node that is gone, or has lost segments: another will hold them; never a partial answer. A field that a node does not know was added
        // a moment ago (the proxy has it from the catalog): the node is being sent the new schema.
        const again = isRetriable(error) || hasCode(error, 'SegmentNotFound', 'FieldNotFound');
        if (!again || context.signal.aborted || context.remaining() <= delay) throw retriable(error, reading);
      } finally {
        view.release();
      }
      if (view.purgedTs > reading.readTs) {
        // Rows that were deleted since its timestamp may be gone: an upsert would show neither of its rows.
        if (scope.readTs > 0) throw purged(scope, view, reading);
        reading = await this.#prepare({ ...scope, guaranteeTs: Math.max(scope.guaranteeTs, view.purgedTs) }, context);
        continue;
      }
      await this.#options.runtime.sleep(delay, context.signal);
    }
  }

  async #readView<Part, Result>(reading: Reading, view: ReadView, context: CallContext, kind: ReadKind<Part, Result>): Promise<Result> {
    const { shard, scope, readTs, expiredTs, deleteSequence } = reading;
    const growing = scope.ignoreGrowing
      ? []
      : view.growing.filter((part) => part.segment.rows > 0).map((part) => part.segment.capture(reading.schema));
    const remote = Promise.all(
      view.holders.map(async ({ node, segmentIds }) => {
        try {
          const segments = {
            vchannel: shard.vchannel,
            collectionId: shard.collectionId,
            segmentIds: [...segmentIds],
            readTs,
            deleteSequence,
            expiredTs,
          };
          return await this.#options.loads.whileAlive(node, context.signal, (signal) =>
            kind.remote(node.address, segments, { signal, remaining: () => context.remaining() }),
          );
        } catch (error) {
          if (hasCode(error, 'SegmentNotFound', 'CollectionNotLoaded')) reading.view.lost(node, segmentIds);
          throw error;
        }
      }),
    );
    // With no source at all, the empty answer has its columns too.
    const local = growing.length > 0 || view.holders.length === 0 ? kind.local(growing, reading) : undefined;
    const [here, there] = await Promise.all([local, remote]);
    const [first] = there;
    if (here === undefined && there.length === 1 && first !== undefined) return kind.only(first, readTs);
    return kind.merge(here, there, reading);
  }

  async #prepare(scope: ReadScope, context: CallContext): Promise<Reading> {
    const { catalog, loads } = this.#options;
    const owner = this.#options.ownerOf(scope.vchannel);
    const shard = await owner.shard(scope.vchannel, scope.collectionId, context.signal);
    let view = loads.viewOf(shard);
    const known = (): boolean => view !== undefined && scope.partitionIds.every((id) => view?.hasPartition(id));
    if (!known()) {
      await catalog.sync();
      loads.refresh(shard);
      view = loads.viewOf(shard);
    }
    const { record, schema } = await liveCollection(catalog, scope.collectionId);
    if (!view) throw new CairnError('CollectionNotLoaded', `collection not loaded[collection=${record.name}]`);
    for (const id of scope.partitionIds) {
      if (!view.hasPartition(id)) throw new CairnError('PartitionNotLoaded', `partition not loaded[partition=${id}]`);
    }
    // Rows of a restore are older than its collection: a channel that is idle since must still show them.
    const least = Math.max(record.createdTs, record.updatedTs, catalog.load(record.id)?.requestedTs ?? 0);
    const asked = scope.readTs > 0 ? scope.readTs : Math.max(scope.guaranteeTs, least);
    await this.#waitForClock(asked, context);
    const { leaseValidUntil, runtime } = this.#options;
    const newest = await owner.readTimestamp(asked, context.signal);
    // Another owner exists only after our lease has run out: what was acknowledged until this instant, we have.
    if (runtime.monotonic() >= leaseValidUntil())
      throw new CairnError('ChannelNotAvailable', `channel of ${scope.vchannel}: the lease of its owner ran out`);
    const readTs = scope.readTs > 0 ? scope.readTs : newest;
    // An idle channel is read at its last write, but time goes on for its rows; a read at a time of its own sees what was there then.
    const nowMs = scope.readTs > 0 ? timestampMs(readTs) : Math.max(timestampMs(readTs), runtime.now());
    const expiredTs = expiredUpTo(record.properties, nowMs);
    return { shard, view, schema, scope, readTs, expiredTs, deleteSequence: shard.lastDeleteSequence };
  }

  /**
   * A guarantee timestamp from the future is waited for, as far as the deadline allows. The future begins at the oracle, which may run before
   * this node's clock: that one only tells when there is nothing to ask.
   */
  async #waitForClock(ts: number, context: CallContext): Promise<void> {
    const { runtime, stamps } = this.#options;
    if (timestampMs(ts) <= runtime.now() + MAX_AHEAD_MS) return;
    for (;;) {
      const aheadMs = timestampMs(ts) - timestampMs(await stamps.allocTimestamps(1, context.signal));
      if (aheadMs <= MAX_AHEAD_MS) return;
      if (aheadMs - MAX_AHEAD_MS > context.remaining())
        throw new CairnError('Timeout', `the guarantee timestamp lies ${aheadMs} ms in the future`);
      await runtime.sleep(aheadMs - MAX_AHEAD_MS, context.signal);
    }
  }
}

function purged({ readTs }: ReadScope, view: ReadView, { shard }: Reading): CairnError {
  return new CairnError(
    'InvalidParameter',
    `${shard.vchannel}: rows deleted up to ${timestampMs(view.purgedTs)} ms are purged, a read at ${timestampMs(readTs)} ms would miss some: begin anew`,
  );
}

/** The last failure of a read that may be repeated, under a code that says so. */
function retriable(error: unknown, { shard }: Reading): CairnError {
  const failure = asCairnError(error);
  if (failure.retriable || failure.codeName !== 'SegmentNotFound') return failure;
  return new CairnError('NodeNotAvailable', `${shard.vchannel}: ${failure.message}`, { cause: error });
}
