/**
 * What is sent is what is read, bit for bit: random schemas with random rows and random nulls, through memory, flush, compaction, snapshot and restore, through the
 * generated messages of the public contract. CAIRN_TYPES_SEEDS: how many schemas; CAIRN_TYPES_SEED: the first.
 */
import { SystemRuntime } from '@cairn/base';
import { CompactionState } from '@cairn/proto/milvus/common';
import {
  CreateCollectionRequest,
  CreateIndexRequest,
  CreateSnapshotRequest,
  DropCollectionRequest,
  FlushRequest,
  GetCompactionStateRequest,
  GetRestoreSnapshotStateRequest,
  InsertRequest,
  LoadCollectionRequest,
  ManualCompactionRequest,
  MilvusServiceDefinition,
  QueryRequest,
  RestoreSnapshotRequest,
  RestoreSnapshotState,
} from '@cairn/proto/milvus/milvus';
import { type FieldData, CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import { type Client, GrpcTransport } from '@cairn/rpc';
import {
  type CollectionSchema,
  type Column,
  columnFromValues,
  columnFromWire,
  columnToWire,
  DataType,
  encodeSchema,
  type Field,
  fieldToWire,
  isVectorType,
  nameInStruct,
  type PlainValue,
  prepareNewSchema,
  valueAt,
} from '@cairn/schema';
import { readable, samples } from '@cairn/schema/testing';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';

const SEEDS = Number(process.env['CAIRN_TYPES_SEEDS'] ?? 6);
const FIRST_SEED = Number(process.env['CAIRN_TYPES_SEED'] ?? 7_000);
const MAX_ROWS = 40;

let server: Standalone;
let client: Client<MilvusServiceDefinition>;
let transport: GrpcTransport;
beforeAll(async () => {
  server = await startStandalone();
  transport = new GrpcTransport(new SystemRuntime());
  client = transport.client(MilvusServiceDefinition, server.address);
});
afterAll(async () => {
  await transport.close();
  await stopChecked(server);
});

interface Sample {
  readonly schema: CollectionSchema;
  /** Values by field name; row i of each is one row. */
  readonly sent: ReadonlyMap<string, readonly PlainValue[]>;
  readonly expected: ReadonlyMap<string, readonly PlainValue[]>;
  readonly rows: number;
}

type Chosen = { readonly field: Field; readonly values: readonly PlainValue[] };

/** A field of a random type, nullable or not, with values for every row. */
const chosenField = (rows: number, vector: boolean): fc.Arbitrary<Chosen> =>
  fc
    .constantFrom(...samples.filter(([of]) => of.type !== DataType.ArrayOfVector && isVectorType(of.type) === vector))
    .chain(([of, value]) =>
      fc
        .boolean()
        .chain((nullable) =>
          fc
            .array(nullable ? fc.option(value, { nil: null, freq: 3 }) : value, { minLength: rows, maxLength: rows })
            .map((values) => ({ field: { ...of, nullable }, values })),
        ),
    );

/** Members of an array of structs: equally many elements in each row. */
const chosenStruct = (rows: number): fc.Arbitrary<readonly Chosen[]> => {
  const kinds = samples.filter(([of]) => of.type === DataType.ArrayOfVector || of.type === DataType.Array);
  const elements = new Map<Field, fc.Arbitrary<PlainValue>>(
    kinds.map(([of]) => {
      const element = samples.find(
        ([other]) => other.type === of.elementType && (of.dim === 0 || other.dim === of.dim || of.type === DataType.Array),
      );
      return [of, element?.[1] ?? fc.constant(null)];
    }),
  );
  const usable = kinds.filter(([of]) => {
    const element = samples.find(([other]) => other.type === of.elementType);
    return of.type === DataType.Array || element?.[0].dim === of.dim;
  });
  return fc
    .tuple(
      fc.uniqueArray(fc.constantFrom(...usable.map(([of]) => of)), { minLength: 1, maxLength: 3 }),
      fc.array(fc.nat(3), { minLength: rows, maxLength: rows }),
    )
    .chain(([fields, lengths]) =>
      fc.tuple(
        ...fields.map((field) =>
          fc
            .tuple(...lengths.map((length) => fc.array(elements.get(field) ?? fc.constant(null), { minLength: length, maxLength: length })))
            .map((values) => ({ field, values: values as readonly PlainValue[] })),
        ),
      ),
    );
};

const dynamicRow = fc.dictionary(
  fc.string({ minLength: 1, maxLength: 6 }).filter((key) => !/^(f|s|id|\$meta)/.test(key)),
  fc.jsonValue(),
  {
    maxKeys: 4,
  },
);

const sample: fc.Arbitrary<Sample> = fc.nat(MAX_ROWS - 1).chain((most) => {
  const rows = most + 1;
  return fc
    .record({
      scalars: fc.array(chosenField(rows, false), { minLength: 1, maxLength: 8 }),
      vectors: fc.array(chosenField(rows, true), { minLength: 1, maxLength: 4 }),
      members: fc.oneof(chosenStruct(rows), fc.constant<readonly Chosen[]>([])),
      textKeys: fc.boolean(),
      dynamic: fc.option(fc.array(dynamicRow, { minLength: rows, maxLength: rows }), { nil: undefined }),
      big: fc.bigInt({ min: 2n ** 53n, max: 2n ** 63n - 1n }),
    })
    .map(({ scalars, vectors, members, textKeys, dynamic, big }) => {
      const all = [...scalars, ...vectors].map(({ field, values }, i) => ({ field: { ...field, name: `f${i}` }, values }));
      const inStruct = members.map(({ field, values }, i) => ({ field: { ...field, name: `m${i}`, nullable: false }, values }));
      const schema = prepareNewSchema(
        WireSchema.fromPartial({
          name: 'types',
          enableDynamicField: dynamic !== undefined,
          fields: [
            textKeys
              ? { name: 'id', dataType: DataType.VarChar, isPrimaryKey: true, typeParams: [{ key: 'max_length', value: '40' }] }
              : { name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
            ...all.map(({ field }) => wireField(field)),
          ],
          structArrayFields: inStruct.length > 0 ? [{ name: 's', fields: inStruct.map(({ field }) => wireField(field)) }] : [],
        }),
      );
      const ids = Array.from({ length: rows }, (_, row): PlainValue => (textKeys ? `k${row}é` : BigInt(row) * 1_000_003n - 5n));
      const meta = dynamic?.map(
        (value) =>
          new Uint8Array(Buffer.from(JSON.stringify(value).replace(/\}$/, `${Object.keys(value).length > 0 ? ',' : ''}"big":${big}}`))),
      );
      const sent = new Map<string, readonly PlainValue[]>([
        ['id', ids],
        ...all.map(({ field, values }) => [field.name, values] as const),
        ...inStruct.map(({ field, values }) => [`s[${field.name}]`, values] as const),
        ...(meta ? [['$meta', meta] as const] : []),
      ]);
      return { schema, sent, expected: sent, rows };
    });
});

function wireField(field: Field) {
  const params = { dim: field.dim, max_length: field.maxLength, max_capacity: field.elementType === DataType.None ? 0 : field.maxCapacity };
  const typeParams = Object.entries(params).flatMap(([key, value]) => (value > 0 ? [{ key, value: String(value) }] : []));
  return { ...fieldToWire(field), typeParams };
}

/** Rows [from, end) in columns as an SDK sends them: structs as one field. */
function fieldsData({ schema, sent }: Sample, from: number, end: number): FieldData[] {
  const dataOf = (field: Field): FieldData => columnToWire(field, columnFromValues(field, (sent.get(field.name) ?? []).slice(from, end)));
  const members = new Set(schema.structs.flatMap((struct) => struct.memberIds));
  const plain = schema.fields.filter((field) => !members.has(field.id)).map(dataOf);
  const structs = schema.structs.map((struct): FieldData => {
    const fields = schema.fields
      .filter((field) => struct.memberIds.includes(field.id))
      .map((field) => ({ ...dataOf(field), fieldName: nameInStruct(struct, field) }));
    return {
      ...{ type: DataType.ArrayOfStruct, fieldName: struct.name, fieldId: 0n, isDynamic: false, validData: [] },
      field: { $case: 'structArrays', value: { fields } },
    };
  });
  return [...plain, ...structs];
}

interface WithStatus {
  readonly status: { readonly code: number; readonly reason: string } | undefined;
}
type Failure = { readonly code: number; readonly reason: string };
function ok<T extends WithStatus | Failure>(reply: T): T {
  const status: Failure | undefined = 'status' in reply ? reply.status : (reply as Failure);
  if (status?.code !== 0) throw new Error(`code ${status?.code}: ${status?.reason}`);
  return reply;
}

async function read(collectionName: string, { schema, expected, rows }: Sample, where: string): Promise<void> {
  const request = QueryRequest.fromPartial({
    collectionName,
    outputFields: ['*'],
    queryParams: [{ key: 'limit', value: '16384' }],
    guaranteeTimestamp: 0n,
  });
  const reply = ok(await client.query(request, {}));
  const data = reply.fieldsData.flatMap((field) => {
    if (field.field?.$case !== 'structArrays') return [[field.fieldName, field] as const];
    return field.field.value.fields.map((member) => [`${field.fieldName}[${member.fieldName}]`, member] as const);
  });
  const columns = new Map<string, Column>();
  for (const [name, field] of data) {
    const of = schema.fields.find((candidate) => candidate.name === name);
    if (of) columns.set(name, columnFromWire(of, field, rows));
  }
  const ids = columns.get('id');
  if (!ids) throw new Error('no keys were read');
  const rowOf = new Map(Array.from({ length: rows }, (_, row) => [valueAt(ids, row), row]));
  for (const field of schema.fields) {
    const column = columns.get(field.name);
    const found = (expected.get('id') ?? []).map((id) => column && readable(valueAt(column, rowOf.get(id) ?? -1)));
    expect(found, `${where}: field ${field.name} of type ${field.type}`).toEqual((expected.get(field.name) ?? []).map(readable));
  }
}

async function load(name: string): Promise<void> {
  ok(await client.loadCollection(LoadCollectionRequest.fromPartial({ collectionName: name }), {}));
}

async function compact(collectionName: string): Promise<void> {
  const { compactionID } = ok(await client.manualCompaction(ManualCompactionRequest.fromPartial({ collectionName }), {}));
  for (;;) {
    const { state } = ok(await client.getCompactionState(GetCompactionStateRequest.fromPartial({ compactionID }), {}));
    if (state === CompactionState.Completed) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function roundTrip(one: Sample, name: string): Promise<void> {
  const { schema } = one;
  const create = { collectionName: name, schema: encodeSchema({ ...schema, name }), shardsNum: 2 };
  ok(await client.createCollection(CreateCollectionRequest.fromPartial(withoutIds(create, schema)), {}));
  for (const field of schema.vectorFields) {
    ok(
      await client.createIndex(
        CreateIndexRequest.fromPartial({ collectionName: name, fieldName: field.name, indexName: `i${field.id}` }),
        {},
      ),
    );
  }
  const half = one.rows >> 1;
  await load(name);
  for (const [from, end] of [
    [0, half],
    [half, one.rows],
  ]) {
    if (end === from) continue;
    const request = InsertRequest.fromPartial({ collectionName: name, fieldsData: fieldsData(one, from, end), numRows: end - from });
    ok(await client.insert(request, {}));
    if (end === one.rows) await read(name, one, 'growing');
    ok(await client.flush(FlushRequest.fromPartial({ collectionNames: [name] }), {}));
  }
  // A snapshot waits until all before it is flushed.
  ok(await client.createSnapshot(CreateSnapshotRequest.fromPartial({ collectionName: name, name: 'before' }), {}));
  await read(name, one, 'flushed');
  await compact(name);
  await read(name, one, 'compacted');
  ok(await client.createSnapshot(CreateSnapshotRequest.fromPartial({ collectionName: name, name: 'after' }), {}));
  const target = `${name}_restored`;
  const restore = RestoreSnapshotRequest.fromPartial({
    ...{ collectionName: name, name: one.rows % 2 ? 'before' : 'after', targetCollectionName: target },
  });
  const { jobId } = ok(await client.restoreSnapshot(restore, {}));
  for (;;) {
    const { info } = ok(await client.getRestoreSnapshotState(GetRestoreSnapshotStateRequest.fromPartial({ jobId }), {}));
    if (info?.state === RestoreSnapshotState.RestoreSnapshotCompleted) break;
    if (info?.state === RestoreSnapshotState.RestoreSnapshotFailed) throw new Error(info.reason);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await load(target);
  await read(target, one, 'restored');
  for (const collectionName of [name, target]) ok(await client.dropCollection(DropCollectionRequest.fromPartial({ collectionName }), {}));
}

/** `$meta` is the server's to add. */
function withoutIds<T extends { schema: Uint8Array }>(request: T, schema: CollectionSchema): T {
  const wire = WireSchema.decode(request.schema);
  return {
    ...request,
    schema: WireSchema.encode({
      ...wire,
      fields: wire.fields.filter((field) => !field.isDynamic),
      enableDynamicField: schema.enableDynamicField,
    }).finish(),
  };
}

test(
  'rows of any schema are read as they were sent: growing, flushed, compacted, restored from a snapshot',
  async () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
      const [one] = fc.sample(sample, { seed, numRuns: 1 });
      await roundTrip(one, `types_${seed}`).catch((error: unknown) => {
        throw new Error(`CAIRN_TYPES_SEED=${seed} CAIRN_TYPES_SEEDS=1`, { cause: error });
      });
    }
  },
  60_000 + SEEDS * 20_000,
);
