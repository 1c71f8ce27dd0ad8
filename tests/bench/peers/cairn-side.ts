/** Cairn: one server, one shard, one segment; inserts of 1,000 rows by four connections. */

import { InsertRequest, SearchResults } from '@cairn/proto/milvus/milvus';
import { FieldData, DataType as WireType } from '@cairn/proto/milvus/schema';
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { startStandalone } from '../../support/cairn.ts';
import { runLoad } from '../support/load.ts';
import { insertFields, PATH, searchRequest, settleAndLoad } from '../support/requests.ts';
import { callRaw } from './raw-call.ts';
import { base64, type Filled, HNSW, type Load, type PeerData, queryOf, type Side, TOP_K } from './side.ts';

const COLLECTION = 'peers';
const BATCH = 1000;
const must = (what: string, status: { error_code?: unknown; reason?: string }): void => {
  if (status.error_code !== 'Success') throw new Error(`${what}: ${status.reason}`);
};

export async function startCairn(): Promise<Side> {
  const server = await startStandalone();
  const { address } = server;
  let data: PeerData;

  const request = (first: number, nq: number, ef: number, below?: number): Uint8Array => {
    const queries = new Float32Array(nq * data.dim);
    for (let i = 0; i < nq; i++) queries.set(queryOf(data, first + i), i * data.dim);
    const filter = below === undefined ? {} : { filter: `bucket < ${below}` };
    return searchRequest({ collection: COLLECTION, field: 'vector', metric: 'L2', topK: TOP_K, ef, ...filter }, queries, data.dim);
  };

  async function create(): Promise<void> {
    const client = new MilvusClient({ address });
    await client.connectPromise;
    must(
      'create collection',
      await client.createCollection({
        collection_name: COLLECTION,
        shards_num: 1,
        fields: [
          { name: 'id', data_type: DataType.Int64, is_primary_key: true },
          { name: 'bucket', data_type: DataType.Int32 },
          { name: 'vector', data_type: DataType.FloatVector, dim: data.dim },
        ],
      }),
    );
    const index = { collection_name: COLLECTION };
    must('index', await client.createIndex({ ...index, field_name: 'vector', index_type: 'HNSW', metric_type: 'L2', params: HNSW }));
    must('index', await client.createIndex({ ...index, field_name: 'bucket', index_type: 'STL_SORT' }));
    await client.closeConnection();
  }

  function inserts(): string[] {
    const requests: string[] = [];
    for (let row = 0; row < data.buckets.length; row += BATCH) {
      const buckets = data.buckets.subarray(row, row + BATCH);
      const scalars = { data: { $case: 'intData' as const, value: { data: [...buckets] } } };
      const bucket = FieldData.fromPartial({
        type: WireType.Int32,
        fieldName: 'bucket',
        field: { $case: 'scalars' as const, value: scalars },
      });
      const fieldsData = [...insertFields(row, data.vectors.subarray(row * data.dim, (row + BATCH) * data.dim), data.dim), bucket];
      requests.push(
        base64(
          InsertRequest.encode(InsertRequest.fromPartial({ collectionName: COLLECTION, numRows: buckets.length, fieldsData })).finish(),
        ),
      );
    }
    return requests;
  }

  return {
    name: 'Cairn',
    note: 'gRPC, Node client',
    async fill(given: PeerData): Promise<Filled> {
      data = given;
      await create();
      const requests = inserts();
      const start = performance.now();
      const load = await runLoad({ address, path: `${PATH}Insert`, requests, connections: 4, depth: 1, once: true, durationMs: 0 });
      await settleAndLoad(address, COLLECTION);
      return { insertSeconds: load.seconds, indexedSeconds: (performance.now() - start) / 1000 };
    },
    async nearest(count, ef, below) {
      const reply = SearchResults.decode(await callRaw(address, `${PATH}Search`, request(0, count, ef, below)));
      if (reply.status?.code) throw new Error(reply.status.reason);
      const ids = reply.results?.ids?.idField?.value.data.map(Number) ?? [];
      let at = 0;
      return (reply.results?.topks ?? []).map((length) => {
        at += Number(length);
        return ids.slice(at - Number(length), at);
      });
    },
    async run({ clients, nq, ef, below, seconds }: Load) {
      const requests = Array.from({ length: 200 }, (_, i) => base64(request(i * nq, nq, ef, below)));
      const spec = { address, path: `${PATH}Search`, requests, connections: clients, depth: 1, once: false, durationMs: seconds * 1000 };
      const load = await runLoad(spec);
      return (load.calls * nq) / load.seconds;
    },
    stop: () => server.stop(),
  };
}
