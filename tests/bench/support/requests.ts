/** Encoded requests and a prepared collection for the benchmarks. */
import { PlaceholderGroup, PlaceholderType } from '@cairn/proto/milvus/common';
import { InsertRequest, SearchRequest } from '@cairn/proto/milvus/milvus';
import { FieldData, DataType as WireType } from '@cairn/proto/milvus/schema';
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';

export const PATH = '/milvus.proto.milvus.MilvusService/';

/** Clustered unit-free vectors: `clusters` centres with noise, so that recall means something. */
export function clusteredVectors(rows: number, dim: number, random: () => number, clusters = 100): Float32Array {
  const centres = Float32Array.from({ length: clusters * dim }, () => random() * 2 - 1);
  const vectors = new Float32Array(rows * dim);
  for (let row = 0; row < rows; row++) {
    const centre = Math.floor(random() * clusters) * dim;
    for (let i = 0; i < dim; i++) vectors[row * dim + i] = (centres[centre + i] ?? 0) + (random() - 0.5) * 0.6;
  }
  return vectors;
}

/** An int64 key `id`, counted from firstKey. */
export function keyField(firstKey: number, rows: number): FieldData {
  const data = Array.from({ length: rows }, (_, i) => BigInt(firstKey + i));
  return FieldData.fromPartial({
    type: WireType.Int64,
    fieldName: 'id',
    field: { $case: 'scalars', value: { data: { $case: 'longData', value: { data } } } },
  });
}

/** Columns of an int64 key `id`, counted from firstKey, and one float `vector`. */
export function insertFields(firstKey: number, vectors: Float32Array, dim: number): FieldData[] {
  const rows = vectors.length / dim;
  return [
    keyField(firstKey, rows),
    FieldData.fromPartial({
      type: WireType.FloatVector,
      fieldName: 'vector',
      field: { $case: 'vectors', value: { dim: BigInt(dim), data: { $case: 'floatVector', value: { data: Array.from(vectors) } } } },
    }),
  ];
}

/** An InsertRequest of an int64 key and one float vector field, encoded. */
export function insertRequest(collection: string, firstKey: number, vectors: Float32Array, dim: number): Uint8Array {
  const rows = vectors.length / dim;
  return InsertRequest.encode(
    InsertRequest.fromPartial({ collectionName: collection, numRows: rows, fieldsData: insertFields(firstKey, vectors, dim) }),
  ).finish();
}

export interface SearchShape {
  readonly collection: string;
  readonly field: string;
  readonly metric: string;
  readonly topK: number;
  /** Absent: as the server picks. */
  readonly ef?: number;
  readonly filter?: string;
}

/** A SearchRequest of `queries` (nq × dim floats), encoded. */
export function searchRequest(shape: SearchShape, queries: Float32Array, dim: number): Uint8Array {
  const nq = queries.length / dim;
  const values = Array.from({ length: nq }, (_, i) => new Uint8Array(queries.slice(i * dim, (i + 1) * dim).buffer));
  return searchRequestOf(shape, PlaceholderType.FloatVector, values);
}

/** A SearchRequest of query vectors of any type in the form of the wire, encoded. */
export function searchRequestOf(shape: SearchShape, type: PlaceholderType, values: Uint8Array[]): Uint8Array {
  const nq = values.length;
  const placeholderGroup = PlaceholderGroup.encode(PlaceholderGroup.fromPartial({ placeholders: [{ tag: '$0', type, values }] })).finish();
  const params = {
    anns_field: shape.field,
    topk: String(shape.topK),
    metric_type: shape.metric,
    round_decimal: '-1',
    params: JSON.stringify(shape.ef === undefined ? {} : { ef: shape.ef }),
  };
  return SearchRequest.encode(
    SearchRequest.fromPartial({
      collectionName: shape.collection,
      dsl: shape.filter ?? '',
      dslType: 1,
      nq: BigInt(nq),
      searchInput: { $case: 'placeholderGroup', value: placeholderGroup },
      searchParams: Object.entries(params).map(([key, value]) => ({ key, value })),
      guaranteeTimestamp: 1n,
      consistencyLevel: 3,
    }),
  ).finish();
}

function must(what: string, status: { error_code?: unknown; reason?: string }): void {
  if (status.error_code !== 'Success') throw new Error(`${what}: ${status.reason}`);
}

/** A collection of (id int64, vector float[dim]); with an HNSW index unless `index` is false. */
export async function createCollection(
  address: string,
  name: string,
  dim: number,
  options: { shards?: number; metric?: string; index?: boolean; M?: number; efConstruction?: number } = {},
): Promise<void> {
  const client = new MilvusClient({ address });
  await client.connectPromise;
  must(
    'create collection',
    await client.createCollection({
      collection_name: name,
      shards_num: options.shards ?? 2,
      fields: [
        { name: 'id', data_type: DataType.Int64, is_primary_key: true },
        { name: 'vector', data_type: DataType.FloatVector, dim },
      ],
    }),
  );
  if (options.index !== false)
    must(
      'create index',
      await client.createIndex({
        collection_name: name,
        field_name: 'vector',
        index_type: 'HNSW',
        metric_type: options.metric ?? 'COSINE',
        params: { M: options.M ?? 16, efConstruction: options.efConstruction ?? 128 },
      }),
    );
  await client.closeConnection();
}

/** Flushes, waits for the index to be built over all rows, loads. */
export async function settleAndLoad(address: string, name: string): Promise<void> {
  const client = new MilvusClient({ address, timeout: 300_000 });
  await client.connectPromise;
  must('flush', (await client.flushSync({ collection_names: [name] })).status);
  for (;;) {
    const described = await client.describeIndex({ collection_name: name });
    must('describe index', described.status);
    const index = described.index_descriptions[0];
    if (index?.state === 'Finished' && Number(index.pending_index_rows ?? 0) === 0) break;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  must('load', await client.loadCollectionSync({ collection_name: name }));
  await client.closeConnection();
}
