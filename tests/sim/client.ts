/** A Milvus client as small as the simulation needs it: calls any proxy, tries again where a status says so, as the SDKs do. */
import { asCairnError, type CairnError, isRetriable } from '@cairn/base';
import type { SimulatedRuntime, Simulation } from '@cairn/base/simulation';
import { AdminDefinition } from '@cairn/proto/cairn/admin';
import type { DrillRecord } from '@cairn/proto/cairn/meta';
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import { ConsistencyLevel, DslType, PlaceholderGroup, PlaceholderType, type Status } from '@cairn/proto/milvus/common';
import {
  CreateAliasRequest,
  CreateCollectionRequest,
  CreateIndexRequest,
  CreatePartitionRequest,
  CreateSnapshotRequest,
  DeleteRequest,
  DropCollectionRequest,
  DropPartitionRequest,
  DropSnapshotRequest,
  FlushRequest,
  GetRestoreSnapshotStateRequest,
  HasCollectionRequest,
  ListSnapshotsRequest,
  LoadCollectionRequest,
  LoadPartitionsRequest,
  ManualCompactionRequest,
  MilvusServiceDefinition,
  PinSnapshotDataRequest,
  QueryRequest,
  ReleasePartitionsRequest,
  RenameCollectionRequest,
  RestoreSnapshotRequest,
  RestoreSnapshotState,
  SearchRequest,
  TruncateCollectionRequest,
  UnpinSnapshotDataRequest,
} from '@cairn/proto/milvus/milvus';
import { CollectionSchema, DataType } from '@cairn/proto/milvus/schema';
import type { CallOptions, Client } from '@cairn/rpc';
import { DataType as ColumnType, type RawFieldData } from '@cairn/schema';
import type { Version } from '../support/model.ts';
import type { Outcome, Row } from '../support/outcome.ts';
import type { RaceClient } from '../support/races.ts';
import { MARKS_CAPACITY } from './marks.ts';
import type { World } from './world.ts';

export const DIM = 4;

/** Which rows a read asks for; every one when nothing is said. */
export interface Look {
  readonly expr?: string;
  readonly partitions?: readonly string[];
}

interface SearchData {
  readonly ids: RawFieldData['payload'];
  readonly scores: Float32Array;
  readonly fields: { raw: RawFieldData }[];
}

const FLAT = { index_type: 'FLAT', metric_type: 'L2' };
const GRAPH = { index_type: 'HNSW', metric_type: 'L2', M: '8', efConstruction: '64' };

type Reply = Status | { readonly status: Status | undefined };
type AnyMethods = Record<string, (request: unknown, options: CallOptions) => Promise<unknown>>;

const TIMEOUT_MS = 6_000;
const RETRY_PAUSE_MS = 300;
const DRILL_TRIES = 4;
/** Calls that repeat themselves harmlessly, or say so when they are repeated: as SDKs do, half of them go without an idempotency key. */
const BARE: ReadonlySet<string> = new Set(['createSnapshot', 'dropSnapshot', 'upsert', 'delete', 'flush', 'query']);
/** Codes that no caller may ever see: bugs of ours. */
const BUGS = new Set([5, 65535]);

export class SimulatedClient implements RaceClient {
  readonly #simulation: Simulation;
  readonly #runtime: SimulatedRuntime;
  readonly #world: World;
  readonly #proxies: readonly Client<MilvusServiceDefinition>[];
  readonly #admins: readonly Client<AdminDefinition>[];
  readonly #upkeeps: readonly Client<UpkeepDefinition>[];
  #idempotency = 0;
  /** Calls whose answer did not come: what they asked for may still happen. */
  unanswered = 0;

  constructor(world: World) {
    this.#world = world;
    this.#simulation = world.simulation;
    this.#runtime = world.outside;
    const transport = world.network.transport(world.outside);
    const proxies = world.processes.filter(({ role }) => role === 'proxy').map(({ name }) => name);
    this.#proxies = proxies.map((name) => transport.client(MilvusServiceDefinition, name));
    this.#admins = proxies.map((name) => transport.client(AdminDefinition, name));
    this.#upkeeps = proxies.map((name) => transport.client(UpkeepDefinition, name));
  }

  /**
   * Calls a proxy, any; again when the status says that it may be, or the connection broke, `tries` times at most, mostly (`withKey`: always) under one idempotency key.
   * A refusal after an unknown outcome is unknown too: the first try may have done it.
   */
  async call<T extends Reply>(
    method: keyof Client<MilvusServiceDefinition>,
    request: unknown,
    tries = 4,
    withKey = false,
  ): Promise<Outcome<T>> {
    const keyed = withKey || !BARE.has(method) || this.#simulation.random() < 0.5;
    const metadata: Record<string, string> = keyed ? { 'idempotency-key': `sim-${++this.#idempotency}` } : {};
    const options: CallOptions = { timeoutMs: TIMEOUT_MS, metadata };
    let unknown = '';
    for (let attempt = 1; ; attempt++) {
      const proxy = this.#proxies[this.#simulation.below(this.#proxies.length)] as unknown as AnyMethods;
      const { reply, reason } = await proxy[method](request, options).then(
        (value) => ({ reply: value as T, reason: '' }),
        (error: CairnError) => ({ reply: undefined, reason: `${error.codeName}: ${error.message}` }),
      );
      const status = reply === undefined ? undefined : statusOf(reply);
      if (reply !== undefined && status?.code === 0) return { kind: 'done', value: reply };
      if (status && BUGS.has(status.code)) this.#world.problem(`${method} answered code ${status.code}: ${status.reason}`);
      if (status && !status.retriable && status.code !== 10000) {
        return unknown === ''
          ? { kind: 'refused', code: status.code, reason: status.reason }
          : { kind: 'unknown', reason: `${unknown}; then ${status.reason}` };
      }
      this.unanswered++;
      unknown = status?.reason ?? reason;
      this.#world.note(`client: ${method} failed: ${unknown}`);
      if (attempt >= tries) return { kind: 'unknown', reason: unknown };
      await this.#runtime.sleep(RETRY_PAUSE_MS * (0.5 + this.#simulation.random()));
    }
  }

  createCollection(name: string, shards: number): Promise<Outcome<Reply>> {
    return this.call(
      'createCollection',
      CreateCollectionRequest.fromPartial({ collectionName: name, schema: schemaOf(name), shardsNum: shards }),
      8,
    );
  }

  async prepare(name: string): Promise<Outcome<Reply>> {
    const index = await this.call(
      'createIndex',
      CreateIndexRequest.fromPartial({
        collectionName: name,
        fieldName: 'vector',
        indexName: 'v',
        extraParams: Object.entries(this.#world.graphs ? GRAPH : FLAT).map(([key, value]) => ({ key, value })),
      }),
      8,
    );
    if (index.kind !== 'done') return index;
    if (this.#world.graphs) {
      // Reads filter by it: what its index says is compared with the model.
      const extraParams = [{ key: 'index_type', value: 'STL_SORT' }];
      const scalar = await this.call(
        'createIndex',
        CreateIndexRequest.fromPartial({ collectionName: name, fieldName: 'version', indexName: 's', extraParams }),
        8,
      );
      if (scalar.kind !== 'done') return scalar;
    }
    return this.load(name);
  }

  load(name: string): Promise<Outcome<Reply>> {
    return this.call('loadCollection', LoadCollectionRequest.fromPartial({ collectionName: name }), 8);
  }

  dropCollection(name: string): Promise<Outcome<Reply>> {
    return this.call('dropCollection', DropCollectionRequest.fromPartial({ collectionName: name }), 6);
  }

  async hasCollection(name: string): Promise<Outcome<{ status: Status | undefined; value: boolean }>> {
    return this.call('hasCollection', HasCollectionRequest.fromPartial({ collectionName: name }));
  }

  insert(collection: string, rows: readonly Row[], partition = ''): Promise<Outcome<Reply>> {
    return this.call('insert', mutation(collection, rows, partition));
  }

  upsert(collection: string, rows: readonly Row[], partition = ''): Promise<Outcome<Reply>> {
    return this.call('upsert', mutation(collection, rows, partition));
  }

  delete(collection: string, keys: readonly number[]): Promise<Outcome<Reply>> {
    return this.call('delete', DeleteRequest.fromPartial({ collectionName: collection, expr: `id in [${keys.join(', ')}]` }));
  }

  flush(collection: string): Promise<Outcome<Reply>> {
    return this.call('flush', FlushRequest.fromPartial({ collectionNames: [collection] }));
  }

  /** One round of garbage collection, by whoever leads. */
  async collectGarbage(): Promise<Outcome<unknown>> {
    const upkeep = this.#upkeeps[this.#simulation.below(this.#upkeeps.length)];
    return upkeep.gcRun({ limit: 0 }, { timeoutMs: TIMEOUT_MS }).then(
      (value) => ({ kind: 'done', value }),
      (error: CairnError) => ({ kind: 'unknown', reason: error.message }),
    );
  }

  /** Begins a drill, under one request id however often it is asked for. */
  async startDrill(collection: string, name: string): Promise<Outcome<DrillRecord>> {
    const request = { database: '', collection, name, requestId: `sim-drill-${++this.#idempotency}` };
    let unknown = '';
    for (let attempt = 1; ; attempt++) {
      const upkeep = this.#upkeeps[this.#simulation.below(this.#upkeeps.length)];
      try {
        return { kind: 'done', value: await upkeep.startDrill(request, { timeoutMs: TIMEOUT_MS }) };
      } catch (error) {
        const { code, codeName, message } = asCairnError(error);
        if (BUGS.has(code)) this.#world.problem(`startDrill answered ${codeName}: ${message}`);
        if (!isRetriable(error) && unknown === '') return { kind: 'refused', code, reason: message };
        unknown = message;
        // Until it is known not to run it may hold the snapshot; two at once is a limit of the cluster.
        if (attempt >= DRILL_TRIES || !isRetriable(error)) return { kind: 'unknown', reason: unknown };
      }
      await this.#runtime.sleep(RETRY_PAUSE_MS * (0.5 + this.#simulation.random()));
    }
  }

  getDrill(id: number): Promise<Outcome<DrillRecord>> {
    const upkeep = this.#upkeeps[this.#simulation.below(this.#upkeeps.length)];
    return upkeep.getDrill({ id }, { timeoutMs: TIMEOUT_MS }).then(
      (value) => ({ kind: 'done', value }),
      (error: CairnError) => ({ kind: 'unknown', reason: error.message }),
    );
  }

  createPartition(collection: string, partition: string): Promise<Outcome<Reply>> {
    return this.call('createPartition', CreatePartitionRequest.fromPartial({ collectionName: collection, partitionName: partition }));
  }

  loadPartition(collection: string, partition: string): Promise<Outcome<Reply>> {
    return this.call('loadPartitions', LoadPartitionsRequest.fromPartial({ collectionName: collection, partitionNames: [partition] }), 8);
  }

  /** Releases it first: a loaded one cannot be dropped. */
  async dropPartition(collection: string, partition: string): Promise<Outcome<Reply>> {
    const partitionNames = [partition];
    const released = await this.call(
      'releasePartitions',
      ReleasePartitionsRequest.fromPartial({ collectionName: collection, partitionNames }),
      8,
    );
    if (released.kind !== 'done') return released;
    return this.call('dropPartition', DropPartitionRequest.fromPartial({ collectionName: collection, partitionName: partition }), 8);
  }

  rename(from: string, to: string): Promise<Outcome<Reply>> {
    return this.call('renameCollection', RenameCollectionRequest.fromPartial({ oldName: from, newName: to }));
  }

  createAlias(collection: string, alias: string): Promise<Outcome<Reply>> {
    return this.call('createAlias', CreateAliasRequest.fromPartial({ collectionName: collection, alias }), 8);
  }

  truncate(collection: string): Promise<Outcome<Reply>> {
    return this.call('truncateCollection', TruncateCollectionRequest.fromPartial({ collectionName: collection }), 1);
  }

  async compact(collection: string): Promise<Outcome<{ status: Status | undefined; compactionID: bigint; compactionPlanCount: number }>> {
    return this.call('manualCompaction', ManualCompactionRequest.fromPartial({ collectionName: collection }));
  }

  createSnapshot(collection: string, name: string, tries = 4): Promise<Outcome<Reply>> {
    return this.call('createSnapshot', CreateSnapshotRequest.fromPartial({ collectionName: collection, name }), tries);
  }

  dropSnapshot(collection: string, name: string, tries = 4): Promise<Outcome<Reply>> {
    return this.call('dropSnapshot', DropSnapshotRequest.fromPartial({ collectionName: collection, name }), tries);
  }

  async listSnapshots(collection: string): Promise<Outcome<{ status: Status | undefined; snapshots: string[] }>> {
    return this.call('listSnapshots', ListSnapshotsRequest.fromPartial({ collectionName: collection }));
  }

  pin(collection: string, name: string, ttlSeconds: number): Promise<Outcome<{ status: Status | undefined; pinId: bigint }>> {
    const request = PinSnapshotDataRequest.fromPartial({ collectionName: collection, name, ttlSeconds: BigInt(ttlSeconds) });
    return this.call('pinSnapshotData', request, 1);
  }

  unpin(pinId: bigint): Promise<Outcome<Reply>> {
    return this.call('unpinSnapshotData', UnpinSnapshotDataRequest.fromPartial({ pinId }));
  }

  restore(collection: string, name: string, target: string): Promise<Outcome<{ status: Status | undefined; jobId: bigint }>> {
    const request = RestoreSnapshotRequest.fromPartial({ collectionName: collection, name, targetCollectionName: target });
    return this.call('restoreSnapshot', request, 1);
  }

  /** A restore with what the Milvus call has no fields for. */
  async restoreChosen(
    collection: string,
    name: string,
    target: string,
    options: { readonly mode?: string; readonly partitions?: readonly string[]; readonly shards?: number; readonly rewriteData?: boolean },
  ): Promise<Outcome<{ jobId: bigint }>> {
    const admin = this.#admins[this.#simulation.below(this.#admins.length)];
    const snapshot = { database: 'default', collection, name, id: 0 };
    const restore = {
      ...{ snapshot, targetDatabase: 'default', targetCollection: target, noIndex: false, requestId: '' },
      ...{ shards: options.shards ?? 0, rewriteData: options.rewriteData ?? false },
      ...{ mode: options.mode ?? '', partitions: [...(options.partitions ?? [])] },
    };
    try {
      const { jobId } = await admin.restoreSnapshot({ restore, dryRun: false }, { timeoutMs: TIMEOUT_MS });
      return { kind: 'done', value: { jobId: BigInt(jobId) } };
    } catch (error) {
      const { code, codeName, message, retriable } = error as CairnError;
      if (BUGS.has(code)) this.#world.problem(`restore of ${name} was refused with ${codeName}: ${message}`);
      this.unanswered++;
      return retriable || codeName === 'Timeout' || codeName === 'Cancelled'
        ? { kind: 'unknown', reason: `${codeName}: ${message}` }
        : { kind: 'refused', code, reason: message };
    }
  }

  /** Waits for the end of a restore job: its state, or what hides it. */
  async restored(jobId: bigint, limitMs: number): Promise<{ readonly state: 'completed' | 'failed' | 'unknown'; readonly reason: string }> {
    const until = this.#simulation.nowMs + limitMs;
    for (;;) {
      const outcome = await this.call<{ status: Status | undefined; info: { state: RestoreSnapshotState; reason: string } | undefined }>(
        'getRestoreSnapshotState',
        GetRestoreSnapshotStateRequest.fromPartial({ jobId }),
      );
      const info = outcome.kind === 'done' ? outcome.value.info : undefined;
      if (info?.state === RestoreSnapshotState.RestoreSnapshotCompleted) return { state: 'completed', reason: '' };
      if (info?.state === RestoreSnapshotState.RestoreSnapshotFailed) return { state: 'failed', reason: info.reason };
      if (outcome.kind === 'refused') return { state: 'unknown', reason: `job ${jobId}: ${outcome.reason}` };
      if (this.#simulation.nowMs > until) return { state: 'unknown', reason: `job ${jobId} did not end within ${limitMs} ms` };
      await this.#runtime.sleep(200);
    }
  }

  /** Waits while a collection is being restored by a job whose id is not known; it may be gone afterwards. */
  async published(target: string, limitMs: number): Promise<void> {
    const until = this.#simulation.nowMs + limitMs;
    while (this.#simulation.nowMs < until) {
      const outcome = await this.load(target);
      if (outcome.kind !== 'refused' || !outcome.reason.includes('is being restored')) return;
      await this.#runtime.sleep(200);
    }
  }

  /** Every row, or those that `look` asks for, by a strong read; each row's payload and vector are checked against its key and version. */
  async rows(collection: string, tries = 3, look: Look = {}): Promise<Outcome<Row[]>> {
    const outcome = await this.call<{ status: Status | undefined; fields: { raw: RawFieldData }[] }>(
      'query',
      QueryRequest.fromPartial({
        collectionName: collection,
        expr: look.expr ?? 'id >= 0',
        partitionNames: look.partitions ? [...look.partitions] : [],
        outputFields: ['id', 'version', 'payload', 'vector'],
        consistencyLevel: ConsistencyLevel.Strong,
      }),
      tries,
    );
    if (outcome.kind !== 'done') return outcome;
    const columns = this.#columns(`query of ${collection}`, outcome.value.fields);
    if (!columns) return { kind: 'unknown', reason: 'fields' };
    const { ids, versions, texts, vectors } = columns;
    const rows = Array.from(ids, (id, i) => ({ key: Number(id), version: versions[i] }));
    rows.forEach(({ key, version }, i) => {
      const vector = [...vectors.subarray(i * DIM, (i + 1) * DIM)];
      if (texts[i] !== payloadOf(key, version) || vector.join() !== vectorOf(key, version).join())
        this.#world.problem(`${collection}: key ${key} version ${version} has payload ${texts[i]}, vector ${vector.join()}`);
    });
    return { kind: 'done', value: rows };
  }

  /** The `limit` rows nearest to the vector of (key, version), best first; scores are checked against the rows. */
  async search(collection: string, near: Row, limit: number, look: Look): Promise<Outcome<Row[]>> {
    const target = vectorOf(near.key, near.version);
    const outcome = await this.call<{ status: Status | undefined; results: SearchData | undefined }>(
      'search',
      SearchRequest.fromPartial({
        collectionName: collection,
        partitionNames: look.partitions ? [...look.partitions] : [],
        dsl: look.expr ?? '',
        dslType: DslType.BoolExprV1,
        searchInput: { $case: 'placeholderGroup', value: placeholder(target) },
        outputFields: ['version'],
        searchParams: Object.entries({ anns_field: 'vector', topk: String(limit), metric_type: 'L2', params: '{}' }).map(
          ([key, value]) => ({ key, value }),
        ),
        nq: 1n,
        consistencyLevel: ConsistencyLevel.Strong,
      }),
      3,
    );
    if (outcome.kind !== 'done') return outcome;
    const { results } = outcome.value;
    const versions = results?.fields.find(({ raw }) => raw.name === 'version')?.raw.payload;
    if (results?.ids.kind !== 'long' || results.ids.values.length === 0) return { kind: 'done', value: [] };
    if (versions?.kind !== 'int') {
      this.#world.problem(`search of ${collection} answered no versions`);
      return { kind: 'unknown', reason: 'fields' };
    }
    const rows = Array.from(results.ids.values, (id, i) => ({ key: Number(id), version: versions.values[i] }));
    rows.forEach((row, i) => {
      const [score, expected] = [results.scores[i], distance(target, row)];
      if (Math.abs(score - expected) > 1e-4 * Math.max(1, expected))
        this.#world.problem(`${collection}: key ${row.key} version ${row.version} was found at ${score}, it lies at ${expected}`);
      if (i > 0 && score < results.scores[i - 1]) this.#world.problem(`${collection}: hits are not in order`);
    });
    return { kind: 'done', value: rows };
  }

  #columns(what: string, fields: readonly { raw: RawFieldData }[]) {
    const payloads = new Map(fields.map(({ raw }) => [raw.name, raw.payload]));
    const ids = payloads.get('id');
    const versions = payloads.get('version');
    const texts = payloads.get('payload');
    const vectors = payloads.get('vector');
    if (ids?.kind !== 'long' || versions?.kind !== 'int' || texts?.kind !== 'text' || vectors?.kind !== 'floatVector') {
      if (ids?.kind === 'long' && ids.values.length === 0)
        return { ids: ids.values, versions: new Int32Array(0), texts: [], vectors: new Float32Array(0) };
      this.#world.problem(`${what} answered fields ${[...payloads].map(([name, { kind }]) => `${name}:${kind}`).join(', ')}`);
      return undefined;
    }
    const text = (i: number): string => Buffer.from(texts.data.subarray(texts.offsets[i], texts.offsets[i + 1])).toString();
    return { ids: ids.values, versions: versions.values, texts: Array.from(ids.values, (_, i) => text(i)), vectors: vectors.values };
  }
}

function statusOf(reply: Reply): Status | undefined {
  return 'status' in reply ? reply.status : reply;
}

export const payloadOf = (key: number, version: Version): string => `${key}/${version}`;
export const vectorOf = (key: number, version: Version): number[] => [key, version, key + version, 1];

/** Squared, as the metric L2 counts it. */
export function distance(target: readonly number[], { key, version }: Row): number {
  return vectorOf(key, version).reduce((sum, value, i) => sum + (value - target[i]) ** 2, 0);
}

function placeholder(vector: readonly number[]): Uint8Array {
  const values = [new Uint8Array(Float32Array.from(vector).buffer)];
  return PlaceholderGroup.encode({
    placeholders: [{ tag: '$0', type: PlaceholderType.FloatVector, values, elementLevel: false }],
  }).finish();
}

function mutation(collectionName: string, rows: readonly Row[], partitionName: string): unknown {
  const texts = rows.map(({ key, version }) => Buffer.from(payloadOf(key, version)));
  const offsets = new Int32Array(rows.length + 1);
  texts.forEach((text, i) => {
    offsets[i + 1] = offsets[i] + text.length;
  });
  const field = (name: string, type: ColumnType, payload: RawFieldData['payload']): RawFieldData => ({
    ...{ name, type, isDynamic: false, payload },
  });
  return {
    ...{ dbName: '', collectionName, partitionName, numRows: rows.length, schemaTimestamp: 0n },
    ...{ partialUpdate: false, fieldOps: [], namespace: undefined, bytes: rows.length * 64 },
    fields: [
      field('id', ColumnType.Int64, { kind: 'long', values: BigInt64Array.from(rows, ({ key }) => BigInt(key)) }),
      field('version', ColumnType.Int32, { kind: 'int', values: Int32Array.from(rows, ({ version }) => version) }),
      field('payload', ColumnType.VarChar, { kind: 'text', offsets, data: Buffer.concat(texts) }),
      field('vector', ColumnType.FloatVector, {
        ...{ kind: 'floatVector', dim: DIM },
        values: Float32Array.from(rows.flatMap(({ key, version }) => vectorOf(key, version))),
      }),
    ],
  };
}

function schemaOf(name: string): Uint8Array {
  return CollectionSchema.encode(
    CollectionSchema.fromPartial({
      name,
      fields: [
        { name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
        { name: 'version', dataType: DataType.Int32 },
        { name: 'payload', dataType: DataType.VarChar, typeParams: [{ key: 'max_length', value: '64' }] },
        { name: 'vector', dataType: DataType.FloatVector, typeParams: [{ key: 'dim', value: String(DIM) }] },
        {
          ...{ name: 'marks', dataType: DataType.Array, elementType: DataType.Int64, nullable: true },
          typeParams: [{ key: 'max_capacity', value: String(MARKS_CAPACITY) }],
        },
      ],
    }),
  ).finish();
}
