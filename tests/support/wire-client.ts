/**
 * A client of real servers on the bare contract, for races: one proxy of several for each call, tries again only where a status says that it may. Not shared with
 * tests/sim/client.ts, which says the same requests: that one lives in virtual time and keeps count of what was never answered, this one waits for real
 * servers that take over; a change for one of them must not quieten the other.
 */
import { type CairnError, SystemRuntime } from '@cairn/base';
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import { ConsistencyLevel, type Status } from '@cairn/proto/milvus/common';
import {
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
  ManualCompactionRequest,
  MilvusServiceDefinition,
  PinSnapshotDataRequest,
  QueryRequest,
  ReleasePartitionsRequest,
  RenameCollectionRequest,
  RestoreSnapshotRequest,
  RestoreSnapshotState,
  UnpinSnapshotDataRequest,
  UpsertRequest,
} from '@cairn/proto/milvus/milvus';
import { CollectionSchema, DataType, FieldData } from '@cairn/proto/milvus/schema';
import { type Client, GrpcTransport } from '@cairn/rpc';
import type { Outcome, Row } from './outcome.ts';
import type { RaceClient } from './races.ts';

const DIM = 4;
const TIMEOUT_MS = 30_000;
const RETRY_PAUSE_MS = 300;
const POLL_MS = 100;
/** Tries of a call that may be repeated: a take-over of a real cluster, on a busy machine, within them. */
const TRIES = 60;

type Milvus = Client<MilvusServiceDefinition>;
type Reply = Status | { readonly status: Status | undefined };

export class WireClient implements RaceClient {
  readonly #transport = new GrpcTransport(new SystemRuntime(), { timeoutMs: TIMEOUT_MS });
  readonly #addresses: readonly string[];
  readonly #random: () => number;

  constructor(addresses: readonly string[], random: () => number) {
    this.#addresses = addresses;
    this.#random = random;
  }

  close(): void {
    this.#transport.close();
  }

  #address(): string {
    return this.#addresses[Math.floor(this.#random() * this.#addresses.length)] ?? '';
  }

  async #call<T extends Reply>(work: (milvus: Milvus) => Promise<T>, tries = TRIES): Promise<Outcome<T>> {
    let unknown = '';
    for (let attempt = 1; ; attempt++) {
      const { reply, reason } = await work(this.#transport.client(MilvusServiceDefinition, this.#address())).then(
        (value) => ({ reply: value, reason: '' }),
        (error: CairnError) => ({ reply: undefined, reason: `${error.codeName}: ${error.message}` }),
      );
      const status = reply === undefined ? undefined : statusOf(reply);
      if (reply !== undefined && (status?.code ?? 0) === 0) return { kind: 'done', value: reply };
      if (status && !status.retriable) {
        return unknown === ''
          ? { kind: 'refused', code: status.code, reason: status.reason }
          : { kind: 'unknown', reason: `${unknown}; then ${status.reason}` };
      }
      unknown = status?.reason ?? reason;
      if (attempt >= tries) return { kind: 'unknown', reason: unknown };
      await new Promise((resolve) => setTimeout(resolve, RETRY_PAUSE_MS));
    }
  }

  createCollection(name: string, shards: number): Promise<Outcome<unknown>> {
    const schema = CollectionSchema.encode(
      CollectionSchema.fromPartial({
        name,
        fields: [
          { name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
          { name: 'version', dataType: DataType.Int32 },
          { name: 'vector', dataType: DataType.FloatVector, typeParams: [{ key: 'dim', value: String(DIM) }] },
        ],
      }),
    ).finish();
    return this.#call((milvus) =>
      milvus.createCollection(CreateCollectionRequest.fromPartial({ collectionName: name, schema, shardsNum: shards })),
    );
  }

  async prepare(name: string): Promise<Outcome<unknown>> {
    const extraParams = Object.entries({ index_type: 'FLAT', metric_type: 'L2' }).map(([key, value]) => ({ key, value }));
    const request = CreateIndexRequest.fromPartial({ collectionName: name, fieldName: 'vector', indexName: 'v', extraParams });
    const index = await this.#call((milvus) => milvus.createIndex(request));
    return index.kind === 'done' ? this.load(name) : index;
  }

  load(name: string): Promise<Outcome<unknown>> {
    return this.#call((milvus) => milvus.loadCollection(LoadCollectionRequest.fromPartial({ collectionName: name })));
  }

  dropCollection(name: string): Promise<Outcome<unknown>> {
    return this.#call((milvus) => milvus.dropCollection(DropCollectionRequest.fromPartial({ collectionName: name })));
  }

  hasCollection(name: string): Promise<Outcome<{ status: Status | undefined; value: boolean }>> {
    return this.#call((milvus) => milvus.hasCollection(HasCollectionRequest.fromPartial({ collectionName: name })));
  }

  createPartition(collection: string, partition: string): Promise<Outcome<unknown>> {
    const request = CreatePartitionRequest.fromPartial({ collectionName: collection, partitionName: partition });
    return this.#call((milvus) => milvus.createPartition(request));
  }

  async dropPartition(collection: string, partition: string): Promise<Outcome<unknown>> {
    const release = ReleasePartitionsRequest.fromPartial({ collectionName: collection, partitionNames: [partition] });
    const released = await this.#call((milvus) => milvus.releasePartitions(release));
    if (released.kind !== 'done') return released;
    const request = DropPartitionRequest.fromPartial({ collectionName: collection, partitionName: partition });
    return this.#call((milvus) => milvus.dropPartition(request));
  }

  rename(from: string, to: string): Promise<Outcome<unknown>> {
    return this.#call((milvus) => milvus.renameCollection(RenameCollectionRequest.fromPartial({ oldName: from, newName: to })));
  }

  upsert(collection: string, rows: readonly Row[], partition = ''): Promise<Outcome<unknown>> {
    const scalar = (fieldName: string, type: DataType, data: unknown) => ({
      fieldName,
      type,
      field: { $case: 'scalars', value: { data } },
    });
    const vectors = { dim: BigInt(DIM), data: { $case: 'floatVector', value: { data: rows.flatMap(vectorOf) } } };
    const fieldsData = [
      scalar('id', DataType.Int64, { $case: 'longData', value: { data: rows.map(({ key }) => BigInt(key)) } }),
      scalar('version', DataType.Int32, { $case: 'intData', value: { data: rows.map(({ version }) => version) } }),
      { fieldName: 'vector', type: DataType.FloatVector, field: { $case: 'vectors', value: vectors } },
    ].map((field) => FieldData.fromPartial(field as Parameters<typeof FieldData.fromPartial>[0]));
    const request = UpsertRequest.fromPartial({ collectionName: collection, partitionName: partition, numRows: rows.length, fieldsData });
    return this.#call((milvus) => milvus.upsert(request));
  }

  delete(collection: string, keys: readonly number[]): Promise<Outcome<unknown>> {
    return this.#call((milvus) =>
      milvus.delete(DeleteRequest.fromPartial({ collectionName: collection, expr: `id in [${keys.join(', ')}]` })),
    );
  }

  flush(collection: string): Promise<Outcome<unknown>> {
    return this.#call((milvus) => milvus.flush(FlushRequest.fromPartial({ collectionNames: [collection] })));
  }

  compact(collection: string): Promise<Outcome<unknown>> {
    return this.#call((milvus) => milvus.manualCompaction(ManualCompactionRequest.fromPartial({ collectionName: collection })));
  }

  createSnapshot(collection: string, name: string, tries = TRIES): Promise<Outcome<unknown>> {
    return this.#call((milvus) => milvus.createSnapshot(CreateSnapshotRequest.fromPartial({ collectionName: collection, name })), tries);
  }

  dropSnapshot(collection: string, name: string, tries = TRIES): Promise<Outcome<unknown>> {
    return this.#call((milvus) => milvus.dropSnapshot(DropSnapshotRequest.fromPartial({ collectionName: collection, name })), tries);
  }

  listSnapshots(collection: string): Promise<Outcome<{ status: Status | undefined; snapshots: string[] }>> {
    return this.#call((milvus) => milvus.listSnapshots(ListSnapshotsRequest.fromPartial({ collectionName: collection })));
  }

  pin(collection: string, name: string, ttlSeconds: number): Promise<Outcome<{ status: Status | undefined; pinId: bigint }>> {
    const request = PinSnapshotDataRequest.fromPartial({ collectionName: collection, name, ttlSeconds: BigInt(ttlSeconds) });
    return this.#call((milvus) => milvus.pinSnapshotData(request), 1);
  }

  unpin(pinId: bigint): Promise<Outcome<unknown>> {
    return this.#call((milvus) => milvus.unpinSnapshotData(UnpinSnapshotDataRequest.fromPartial({ pinId })));
  }

  restore(collection: string, name: string, target: string): Promise<Outcome<{ status: Status | undefined; jobId: bigint }>> {
    const request = RestoreSnapshotRequest.fromPartial({ collectionName: collection, name, targetCollectionName: target });
    return this.#call((milvus) => milvus.restoreSnapshot(request), 1);
  }

  async restored(jobId: bigint, limitMs: number): Promise<{ readonly state: 'completed' | 'failed' | 'unknown'; readonly reason: string }> {
    const until = performance.now() + limitMs;
    for (;;) {
      const outcome = await this.#call((milvus) => milvus.getRestoreSnapshotState(GetRestoreSnapshotStateRequest.fromPartial({ jobId })));
      const info = outcome.kind === 'done' ? outcome.value.info : undefined;
      if (info?.state === RestoreSnapshotState.RestoreSnapshotCompleted) return { state: 'completed', reason: '' };
      if (info?.state === RestoreSnapshotState.RestoreSnapshotFailed) return { state: 'failed', reason: info.reason };
      if (outcome.kind === 'refused') return { state: 'unknown', reason: outcome.reason };
      if (performance.now() > until) return { state: 'unknown', reason: `job ${jobId} did not end within ${limitMs} ms` };
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async rows(collection: string, tries = TRIES): Promise<Outcome<Row[]>> {
    const request = QueryRequest.fromPartial({
      collectionName: collection,
      expr: 'id >= 0',
      outputFields: ['id', 'version'],
      consistencyLevel: ConsistencyLevel.Strong,
    });
    const outcome = await this.#call((milvus) => milvus.query(request), tries);
    if (outcome.kind !== 'done') return outcome;
    const numbers = (name: string): number[] => {
      const field = outcome.value.fieldsData.find(({ fieldName }) => fieldName === name)?.field;
      const data = field?.$case === 'scalars' ? field.value.data : undefined;
      if (data?.$case === 'longData' || data?.$case === 'intData') return data.value.data.map(Number);
      return [];
    };
    const versions = numbers('version');
    return { kind: 'done', value: numbers('id').map((key, i) => ({ key, version: versions[i] })) };
  }

  async collectGarbage(): Promise<Outcome<unknown>> {
    return this.#transport
      .client(UpkeepDefinition, this.#address())
      .gcRun({ limit: 0 }, { timeoutMs: TIMEOUT_MS })
      .then(
        (value) => ({ kind: 'done', value }),
        (error: CairnError) => ({ kind: 'unknown', reason: error.message }),
      );
  }
}

function statusOf(reply: Reply): Status | undefined {
  return 'status' in reply ? reply.status : reply;
}

const vectorOf = ({ key, version }: Row): number[] => [key, version, key + version, 1];
