/** A Milvus client as small as the simulation needs it: calls any proxy, tries again where a status says so, as the SDKs do. */
import type { CairnError } from '@cairn/base';
import type { SimulatedRuntime, Simulation } from '@cairn/base/simulation';
import { ConsistencyLevel, type Status } from '@cairn/proto/milvus/common';
import {
  CreateCollectionRequest,
  CreateIndexRequest,
  CreateSnapshotRequest,
  DeleteRequest,
  DropCollectionRequest,
  DropSnapshotRequest,
  FlushRequest,
  GetRestoreSnapshotStateRequest,
  HasCollectionRequest,
  ListSnapshotsRequest,
  LoadCollectionRequest,
  MilvusServiceDefinition,
  PinSnapshotDataRequest,
  QueryRequest,
  RestoreSnapshotRequest,
  RestoreSnapshotState,
  UnpinSnapshotDataRequest,
} from '@cairn/proto/milvus/milvus';
import { CollectionSchema, DataType } from '@cairn/proto/milvus/schema';
import type { CallOptions, Client } from '@cairn/rpc';
import { DataType as ColumnType, type RawFieldData } from '@cairn/schema';
import type { Version } from '../support/model.ts';
import type { World } from './world.ts';

export const DIM = 4;

/** What became of a call: done, refused for good, or nobody knows. */
export type Outcome<T> =
  | { readonly kind: 'done'; readonly value: T }
  | { readonly kind: 'refused'; readonly code: number; readonly reason: string }
  | { readonly kind: 'unknown'; readonly reason: string };

export interface Row {
  readonly key: number;
  readonly version: Version;
}

type Reply = Status | { readonly status: Status | undefined };
type AnyMethods = Record<string, (request: unknown, options: CallOptions) => Promise<unknown>>;

const TIMEOUT_MS = 6_000;
const RETRY_PAUSE_MS = 300;
/** Calls that repeat themselves harmlessly, or say so when they are repeated: as SDKs do, half of them go without an idempotency key. */
const BARE: ReadonlySet<string> = new Set(['createSnapshot', 'dropSnapshot', 'upsert', 'delete', 'flush', 'query']);
/** Codes that no caller may ever see: bugs of ours. */
const BUGS = new Set([5, 65535]);

export class SimulatedClient {
  readonly #simulation: Simulation;
  readonly #runtime: SimulatedRuntime;
  readonly #world: World;
  readonly #proxies: readonly Client<MilvusServiceDefinition>[];
  #idempotency = 0;
  /** Calls whose answer did not come: what they asked for may still happen. */
  unanswered = 0;

  constructor(world: World) {
    this.#world = world;
    this.#simulation = world.simulation;
    this.#runtime = world.outside;
    const transport = world.network.transport(world.outside);
    this.#proxies = world.processes
      .filter((process) => process.role === 'proxy')
      .map((process) => transport.client(MilvusServiceDefinition, process.name));
  }

  /**
   * Calls a proxy, any; again when the status says that it may be, or the connection broke, `tries` times at most, mostly under one idempotency key.
   * A refusal after an unknown outcome is unknown too: the first try may have done it.
   */
  async call<T extends Reply>(method: keyof Client<MilvusServiceDefinition>, request: unknown, tries = 4): Promise<Outcome<T>> {
    const keyed = !BARE.has(method) || this.#simulation.random() < 0.5;
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
        extraParams: [
          { key: 'index_type', value: 'FLAT' },
          { key: 'metric_type', value: 'L2' },
        ],
      }),
      8,
    );
    if (index.kind !== 'done') return index;
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

  insert(collection: string, rows: readonly Row[]): Promise<Outcome<Reply>> {
    return this.call('insert', mutation(collection, rows));
  }

  upsert(collection: string, rows: readonly Row[]): Promise<Outcome<Reply>> {
    return this.call('upsert', mutation(collection, rows));
  }

  delete(collection: string, keys: readonly number[]): Promise<Outcome<Reply>> {
    return this.call('delete', DeleteRequest.fromPartial({ collectionName: collection, expr: `id in [${keys.join(', ')}]` }));
  }

  flush(collection: string): Promise<Outcome<Reply>> {
    return this.call('flush', FlushRequest.fromPartial({ collectionNames: [collection] }));
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

  /** Every row, by a strong read; each row's payload and vector are checked against its key and version. */
  async rows(collection: string, tries = 3): Promise<Outcome<Row[]>> {
    const outcome = await this.call<{ status: Status | undefined; fields: { raw: RawFieldData }[] }>(
      'query',
      QueryRequest.fromPartial({
        collectionName: collection,
        expr: 'id >= 0',
        outputFields: ['id', 'version', 'payload', 'vector'],
        consistencyLevel: ConsistencyLevel.Strong,
      }),
      tries,
    );
    if (outcome.kind !== 'done') return outcome;
    const payloads = new Map(outcome.value.fields.map(({ raw }) => [raw.name, raw.payload]));
    const ids = payloads.get('id');
    const versions = payloads.get('version');
    const texts = payloads.get('payload');
    const vectors = payloads.get('vector');
    if (ids?.kind !== 'long' || versions?.kind !== 'int' || texts?.kind !== 'text' || vectors?.kind !== 'floatVector') {
      if (ids?.kind === 'long' && ids.values.length === 0) return { kind: 'done', value: [] };
      this.#world.problem(
        `query of ${collection} answered fields ${[...payloads].map(([name, { kind }]) => `${name}:${kind}`).join(', ')}`,
      );
      return { kind: 'unknown', reason: 'fields' };
    }
    const rows = Array.from(ids.values, (id, i) => ({ key: Number(id), version: versions.values[i] }));
    rows.forEach(({ key, version }, i) => {
      const text = Buffer.from(texts.data.subarray(texts.offsets[i], texts.offsets[i + 1])).toString();
      const vector = [...vectors.values.subarray(i * DIM, (i + 1) * DIM)];
      if (text !== payloadOf(key, version) || vector.join() !== vectorOf(key, version).join())
        this.#world.problem(`${collection}: key ${key} version ${version} has payload ${text}, vector ${vector.join()}`);
    });
    return { kind: 'done', value: rows };
  }
}

function statusOf(reply: Reply): Status | undefined {
  return 'status' in reply ? reply.status : reply;
}

const payloadOf = (key: number, version: Version): string => `${key}/${version}`;
const vectorOf = (key: number, version: Version): number[] => [key, version, key + version, 1];

function mutation(collectionName: string, rows: readonly Row[]): unknown {
  const texts = rows.map(({ key, version }) => Buffer.from(payloadOf(key, version)));
  const offsets = new Int32Array(rows.length + 1);
  texts.forEach((text, i) => {
    offsets[i + 1] = offsets[i] + text.length;
  });
  const field = (name: string, type: ColumnType, payload: RawFieldData['payload']): RawFieldData => ({
    ...{ name, type, isDynamic: false, payload },
  });
  return {
    ...{ dbName: '', collectionName, partitionName: '', numRows: rows.length, schemaTimestamp: 0n },
    ...{ partialUpdate: false, fieldOps: 0, namespace: undefined, bytes: rows.length * 64 },
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
      ],
    }),
  ).finish();
}
