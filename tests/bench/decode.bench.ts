/** Decoding an InsertRequest of 768-d float vectors, about 4 MB: from the request's bytes to a validated column, beside the generated decoder. */
import { InsertRequest } from '@cairn/proto/milvus/milvus';
import { CollectionSchema, DataType } from '@cairn/proto/milvus/schema';
import { columnFromRaw, schemaFromWire } from '@cairn/schema';
import { decodeInsertRequest } from '../../services/proxy/src/codec/mutation-request.ts';
import { printTable, quantile, round } from './support/table.ts';

const DIM = 768;
const ROWS = 1366;
const RUNS = 60;

const schema = schemaFromWire(
  CollectionSchema.fromPartial({
    name: 'bench',
    fields: [
      { fieldID: 100n, name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
      { fieldID: 101n, name: 'embedding', dataType: DataType.FloatVector, typeParams: [{ key: 'dim', value: String(DIM) }] },
    ],
  }),
);
const data = Array.from({ length: ROWS * DIM }, (_, i) => Math.fround(Math.sin(i)));
const request = InsertRequest.fromPartial({
  collectionName: 'bench',
  numRows: ROWS,
  fieldsData: [
    {
      type: DataType.Int64,
      fieldName: 'id',
      field: {
        $case: 'scalars',
        value: { data: { $case: 'longData', value: { data: Array.from({ length: ROWS }, (_, i) => BigInt(i)) } } },
      },
    },
    {
      type: DataType.FloatVector,
      fieldName: 'embedding',
      field: { $case: 'vectors', value: { dim: BigInt(DIM), data: { $case: 'floatVector', value: { data } } } },
    },
  ],
});
const encoded = InsertRequest.encode(request).finish();

/** The same request at each alignment that a network buffer may give it: at three of four the run is copied, at one it is a view. */
const shifted = [0, 1, 2, 3].map((shift) => {
  const room = Buffer.alloc(encoded.length + 4);
  room.set(encoded, shift);
  return room.subarray(shift, shift + encoded.length);
});

function toColumns(bytes: Uint8Array): number {
  const decoded = decodeInsertRequest(bytes);
  let rows = 0;
  for (const raw of decoded.fields) {
    const field = schema.byName.get(raw.name);
    if (field) rows += columnFromRaw(field, raw, decoded.numRows).length;
  }
  return rows;
}

function measure(what: string, runs: number, work: (run: number) => unknown): Record<string, string | number> {
  const times: number[] = [];
  for (let run = 0; run < runs + 5; run++) {
    const start = performance.now();
    work(run);
    if (run >= 5) times.push(performance.now() - start);
  }
  const median = quantile(times, 0.5);
  return { what, 'median ms': round(median, 2), 'p90 ms': round(quantile(times, 0.9), 2), 'MB/s': round(encoded.length / 1e3 / median, 0) };
}

printTable(`InsertRequest, ${ROWS} rows of ${DIM} floats, ${round(encoded.length / 1e6, 1)} MB`, [
  measure('decode to columns, copied to aligned memory', RUNS, (run) => decodeInsertRequest(shifted[run % shifted.length])),
  measure('the same and validated (NaN, dim, counts)', RUNS, (run) => toColumns(shifted[run % shifted.length])),
  measure('generated decoder', 10, () => InsertRequest.decode(encoded)),
]);
