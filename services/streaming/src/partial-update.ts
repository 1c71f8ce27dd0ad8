import { CairnError, type Runtime } from '@cairn/base';
import { type Literal, serializeExpr } from '@cairn/expr';
import {
  ArrayOp,
  type PartialUpdate,
  type QueryPlan,
  type QueryResult,
  type ShardQueryRequest,
  type WriteRequest,
  type WriteResponse,
} from '@cairn/proto/cairn/services';
import type { CallContext } from '@cairn/rpc';
import {
  type CollectionSchema,
  type Column,
  type ColumnBatch,
  concatBatches,
  decodeFrame,
  encodeFrame,
  hashKeys,
  type ListOp,
  mergePartialRows,
  rowsOfKeys,
  shardOf,
  takeBatch,
  valueAt,
} from '@cairn/schema';
import type { StreamingCatalog } from './catalog-face.ts';
import { KeyTurns, type KeyWatch, type KeyWatches } from './key-watch.ts';
import { StaleRead } from './pending-write.ts';
import type { Shard } from './shard.ts';
import { within } from './waiting.ts';
import { checkWrite, liveCollection } from './write-check.ts';

/** Reads of one update that other writes of its keys made worthless; then it ends, retriably. */
const MAX_READS = 50;
/** Between a read that became stale and the next one, at most. */
const AGAIN_AFTER_MS = 20;

export interface PartialUpdateOptions {
  readonly catalog: StreamingCatalog;
  readonly runtime: Runtime;
  readonly watches: KeyWatches;
  /** Resolves when everything stamped before the call is in memory. */
  drained(): Promise<void>;
  /** Reads of the shard, growing and sealed rows, at what is applied when it comes. */
  query(request: ShardQueryRequest, context: CallContext): Promise<QueryResult>;
  /** Appends the whole rows, unless the watch is stale when their stamp comes: StaleRead. */
  append(shard: Shard, request: WriteRequest, context: CallContext, watch: KeyWatch): Promise<WriteResponse>;
}

/** Stored rows that have the keys, and the partition of each. */
interface Stored {
  readonly batch: ColumnBatch;
  readonly partitions: readonly number[];
}

/**
 * Upserts that name only some fields, made whole where the shard is owned: watch the keys, read their rows, merge, append as an upsert like any
 * other. A write of one of the keys that got its stamp between the read and ours makes the read worthless, and it is done again; so what the log
 * holds is as if the read had been made at the write's own stamp, and no update is lost. In the log there are whole rows: a replay reads nothing.
 */
export class PartialUpdates {
  readonly #options: PartialUpdateOptions;
  readonly #turns = new KeyTurns();

  constructor(options: PartialUpdateOptions) {
    this.#options = options;
  }

  /** CollectionNotLoaded, PartitionNotLoaded when the stored rows cannot be read; InvalidParameter for new rows without required fields. */
  async write(shard: Shard, request: WriteRequest, partial: PartialUpdate, context: CallContext): Promise<WriteResponse> {
    const { catalog, watches, runtime } = this.#options;
    const keys = keysOf(partial);
    const turn = this.#turns.take(shard.vchannel, keys);
    try {
      await within(turn.ready, context.signal, `${shard.vchannel}: partial updates of the same keys`);
      for (let read = 1; ; read++) {
        await checkWrite(catalog, { ...request, inserts: [], deletePartitionId: partial.partitionId }, { inserts: [], deletes: [] });
        const { schema } = await liveCollection(catalog, request.collectionId);
        const watch = watches.watch(shard.vchannel, schema.primaryKey.id, keys);
        try {
          return await this.#options.append(shard, await this.#whole(request, partial, keys, schema, context), context, watch);
        } catch (error) {
          if (!(error instanceof StaleRead)) throw error;
          if (read >= MAX_READS)
            throw new CairnError('TooManyRequests', `${shard.vchannel}: other writes of the same keys came between ${read} times`);
        } finally {
          watch.close();
        }
        await runtime.sleep(runtime.random() * Math.min(AGAIN_AFTER_MS, read), context.signal);
      }
    } finally {
      turn.done();
    }
  }

  /** The request with whole rows in place of the partial ones. */
  async #whole(
    request: WriteRequest,
    partial: PartialUpdate,
    keys: Column,
    schema: CollectionSchema,
    context: CallContext,
  ): Promise<WriteRequest> {
    const sent = decodeFrame(partial.columns);
    const ops = new Map<number, ListOp>();
    for (const { fieldId, op } of partial.ops) {
      if (op === ArrayOp.ARRAY_OP_APPEND) ops.set(fieldId, 'append');
      else if (op === ArrayOp.ARRAY_OP_REMOVE) ops.set(fieldId, 'remove');
    }
    await within(this.#options.drained(), context.signal, `${request.vchannel}: writes under way`);
    const stored = await this.#read(request, partial, keys, sent, ops, schema, context);
    const batch = mergePartialRows(schema, { sent, keys, stored: stored.batch, ops });
    const inserts = [...this.#partitionsOf(partial, keys, schema, stored, batch, request.collectionId)].map(([partitionId, rows]) => ({
      partitionId,
      rows: rows.length,
      columns: encodeFrame(rows.length === batch.length ? batch : takeBatch(batch, Int32Array.from(rows))),
    }));
    return { ...request, partial: undefined, inserts, deletes: partial.keys, deleteRows: partial.rows, deletePartitionId: 0 };
  }

  async #read(
    request: WriteRequest,
    partial: PartialUpdate,
    keys: Column,
    sent: ColumnBatch,
    ops: ReadonlyMap<number, ListOp>,
    schema: CollectionSchema,
    context: CallContext,
  ): Promise<Stored> {
    const { vchannel, collectionId } = request;
    const kept = schema.fields.filter((field) => !sent.columns.has(field.id) || field.isDynamic || ops.has(field.id));
    const plan: QueryPlan = {
      filter: serializeExpr(keyFilter(schema, keys)),
      outputFieldIds: [...new Set([schema.primaryKey.id, ...kept.map((field) => field.id)])],
      dynamicKeys: [],
      limit: 0,
      countOnly: false,
      ordered: true,
    };
    const read = async (partitionIds: number[]): Promise<ColumnBatch> => {
      const scope = { vchannel, collectionId, partitionIds, guaranteeTs: 0, readTs: 0, ignoreGrowing: false };
      return decodeFrame((await this.#options.query({ scope, plan }, context)).columns);
    };
    const live = this.#livePartitions(collectionId);
    // Rows say where they are only by being read there.
    if (schema.partitionKey || partial.partitionId !== 0 || live.length === 1) {
      const batch = await read([]);
      return { batch, partitions: new Array<number>(batch.length).fill(live.length === 1 ? live[0] : partial.partitionId) };
    }
    const batches = await Promise.all(live.map((id) => read([id])));
    return { batch: concatBatches(batches), partitions: batches.flatMap((batch, at) => new Array<number>(batch.length).fill(live[at])) };
  }

  /** All of them, sorted as the proxy sorts them; each must be loaded: a row that cannot be read would be taken for missing. */
  #livePartitions(collectionId: number): number[] {
    const { catalog } = this.#options;
    const live = catalog.partitions(collectionId).filter((partition) => partition.droppedTs === 0);
    const load = catalog.load(collectionId);
    const absent = load && load.partitionIds.length > 0 ? live.find((partition) => !load.partitionIds.includes(partition.id)) : undefined;
    if (absent) {
      throw new CairnError(
        'PartitionNotLoaded',
        `partition not loaded[partition=${absent.name}]: a partial update reads the rows of all partitions`,
      );
    }
    return live.map((partition) => partition.id).sort((a, b) => a - b);
  }

  /** Rows by the partition they go to. */
  #partitionsOf(
    partial: PartialUpdate,
    keys: Column,
    schema: CollectionSchema,
    stored: Stored,
    batch: ColumnBatch,
    collectionId: number,
  ): Map<number, number[]> {
    const groups = new Map<number, number[]>();
    const put = (partitionId: number, row: number): void => {
      const rows = groups.get(partitionId);
      if (rows) rows.push(row);
      else groups.set(partitionId, [row]);
    };
    const partitionKey = schema.partitionKey && batch.columns.get(schema.partitionKey.id);
    if (partitionKey) {
      const live = this.#livePartitions(collectionId);
      hashKeys(partitionKey).forEach((hash, row) => {
        put(live[shardOf(hash, live.length)] ?? 0, row);
      });
      return groups;
    }
    const storedKeys = stored.batch.columns.get(schema.primaryKey.id);
    if (!storedKeys) throw new CairnError('Internal', 'stored rows without their keys');
    rowsOfKeys(keys, storedKeys).forEach((from, row) => {
      const now = from < 0 ? partial.defaultPartitionId : (stored.partitions[from] ?? 0);
      put(partial.partitionId || now, row);
    });
    return groups;
  }
}

function keysOf(partial: PartialUpdate): Column {
  const [keys, ...others] = decodeFrame(partial.keys).columns.values();
  if (!keys || others.length > 0 || keys.length !== partial.rows)
    throw new CairnError('InvalidParameter', `partial update: ${partial.rows} rows announced, ${keys?.length ?? 0} keys sent`);
  return keys;
}

function keyFilter({ primaryKey }: CollectionSchema, keys: Column) {
  const { id, type, elementType, name } = primaryKey;
  const list = Array.from({ length: keys.length }, (_, row) => valueAt(keys, row) as Literal);
  return { kind: 'in', value: { kind: 'column', fieldId: id, type, elementType, path: [], name }, list, negated: false } as const;
}
