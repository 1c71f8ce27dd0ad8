import { CairnError } from '@cairn/base';
import { Status } from '@cairn/proto/milvus/common';
import { InsertRequest, QueryResults, SearchResults, UpsertRequest } from '@cairn/proto/milvus/milvus';
import { type FieldData, DataType as WireType } from '@cairn/proto/milvus/schema';
import { DataType, rawFromWire, rawToWire } from '@cairn/schema';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeInsertRequest, decodeUpsertRequest } from '../src/codec/mutation-request.ts';
import { encodeQueryReply, encodeSearchReply } from '../src/codec/results.ts';
import { decodeSearchRequest } from '../src/codec/search-request.ts';
import { WireReader } from '../src/codec/wire-reader.ts';
import { WireWriter } from '../src/codec/wire-writer.ts';

type Payload = NonNullable<FieldData['field']>;

const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const float = fc.float({ noNaN: true });
const bytes = fc.uint8Array({ maxLength: 40 });
const text = fc.string({ unit: 'grapheme', maxLength: 30 });
const list = <T>(of: fc.Arbitrary<T>) => fc.array(of, { maxLength: 12 }).map((data) => ({ data }));

const scalarCase = fc.oneof(
  list(fc.boolean()).map((value) => ({ $case: 'boolData' as const, value })),
  list(int32).map((value) => ({ $case: 'intData' as const, value })),
  list(int64).map((value) => ({ $case: 'longData' as const, value })),
  list(float).map((value) => ({ $case: 'floatData' as const, value })),
  list(fc.double({ noNaN: true })).map((value) => ({ $case: 'doubleData' as const, value })),
  list(text).map((value) => ({ $case: 'stringData' as const, value })),
  list(bytes).map((value) => ({ $case: 'jsonData' as const, value })),
  list(bytes).map((value) => ({ $case: 'geometryData' as const, value })),
  list(text).map((value) => ({ $case: 'geometryWktData' as const, value })),
  list(int64).map((value) => ({ $case: 'timestamptzData' as const, value })),
);
const arrayCase = fc
  .oneof(
    fc.array(
      list(int64).map((value) => ({ data: { $case: 'longData' as const, value } })),
      { maxLength: 6 },
    ),
    fc.array(
      list(text).map((value) => ({ data: { $case: 'stringData' as const, value } })),
      { maxLength: 6 },
    ),
    fc.array(
      list(fc.boolean()).map((value) => ({ data: { $case: 'boolData' as const, value } })),
      { maxLength: 6 },
    ),
    fc.array(
      list(float).map((value) => ({ data: { $case: 'floatData' as const, value } })),
      { maxLength: 6 },
    ),
  )
  .map((data) => ({ $case: 'arrayData' as const, value: { data, elementType: WireType.Int64 } }));
const vectorCase = fc.oneof(
  list(float).map((value) => ({ $case: 'floatVector' as const, value })),
  bytes.map((value) => ({ $case: 'binaryVector' as const, value })),
  bytes.map((value) => ({ $case: 'float16Vector' as const, value })),
  bytes.map((value) => ({ $case: 'bfloat16Vector' as const, value })),
  bytes.map((value) => ({ $case: 'int8Vector' as const, value })),
  fc.array(bytes, { maxLength: 6 }).map((contents) => ({ $case: 'sparseFloatVector' as const, value: { contents, dim: 7n } })),
);
const payload: fc.Arbitrary<Payload> = fc.oneof(
  scalarCase.map((data) => ({ $case: 'scalars' as const, value: { data } })),
  arrayCase.map((data) => ({ $case: 'scalars' as const, value: { data } })),
  vectorCase.map((data) => ({ $case: 'vectors' as const, value: { dim: 4n, data } })),
);
const fieldData: fc.Arbitrary<FieldData> = fc.record({
  type: fc.constantFrom(WireType.Bool, WireType.Int64, WireType.VarChar, WireType.FloatVector, WireType.JSON),
  fieldName: text,
  field: payload,
  fieldId: fc.constant(0n),
  isDynamic: fc.boolean(),
  validData: fc.array(fc.boolean(), { maxLength: 12 }),
});

/** Plain values, so that views and copies compare alike. */
function plain(value: unknown): unknown {
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<unknown>);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).flatMap(([key, inner]) => (inner === undefined ? [] : [[key, plain(inner)]])));
}

/** Raw form with an absent and an empty validity alike. */
function normal(raw: ReturnType<typeof rawFromWire>): unknown {
  const { validData, ...rest } = raw;
  return plain({ ...rest, validData: Array.from(validData ?? [], Boolean) });
}

describe('InsertRequest straight from the bytes', () => {
  test('gives the same columns as the generated decoder, for every kind of field', () => {
    fc.assert(
      fc.property(
        fc.array(fieldData, { maxLength: 4 }),
        fc.nat(),
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        (fieldsData, numRows, schemaTimestamp) => {
          const message = InsertRequest.fromPartial({
            dbName: 'd',
            collectionName: 'cö',
            partitionName: 'p',
            fieldsData,
            numRows,
            schemaTimestamp,
          });
          const wire = Buffer.from(InsertRequest.encode(message).finish());
          const decoded = decodeInsertRequest(wire);
          expect(decoded).toMatchObject({
            dbName: 'd',
            collectionName: 'cö',
            partitionName: 'p',
            numRows,
            schemaTimestamp,
            partialUpdate: false,
          });
          const expected = InsertRequest.decode(wire).fieldsData.map((field) => normal(rawFromWire(field)));
          expect(decoded.fields.map(normal)).toEqual(expected);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('takes vectors that are unpacked, cut in chunks or split over messages', () => {
    const floats = [1.5, -2, 3.25, 4, 5, 6];
    const raw = Buffer.from(new Float32Array(floats).buffer);
    const field = (number: number, content: Buffer) => Buffer.concat([Buffer.from([(number << 3) | 2, content.length]), content]);
    const unpacked = Buffer.concat(floats.map((_, i) => Buffer.concat([Buffer.from([0x0d]), raw.subarray(i * 4, i * 4 + 4)])));
    const chunks = Buffer.concat([field(1, raw.subarray(0, 8)), field(1, Buffer.alloc(0)), field(1, raw.subarray(8))]);
    const whole = field(1, raw);
    const forms = {
      unpacked: field(4, Buffer.concat([Buffer.from([0x08, 3]), field(2, unpacked)])),
      chunks: field(4, Buffer.concat([Buffer.from([0x08, 3]), field(2, chunks)])),
      messages: field(
        4,
        Buffer.concat([Buffer.from([0x08, 3]), field(2, field(1, raw.subarray(0, 12))), field(2, field(1, raw.subarray(12)))]),
      ),
      mixed: Buffer.concat([
        field(4, Buffer.concat([Buffer.from([0x08, 3]), field(2, field(1, raw.subarray(0, 4)))])),
        field(4, field(2, field(1, raw.subarray(4)))),
      ]),
      packed: field(4, Buffer.concat([field(2, whole), Buffer.from([0x08, 3])])),
    };
    for (const [form, content] of Object.entries(forms)) {
      for (let shift = 0; shift < 4; shift++) {
        // Different alignments of the run in the request.
        const name = field(2, Buffer.alloc(shift, 'x'));
        const [decoded] = decodeInsertRequest(field(5, Buffer.concat([name, content]))).fields;
        expect(decoded.payload, form).toEqual({ kind: 'floatVector', dim: 3, values: new Float32Array(floats) });
      }
    }
  });

  test('an array of structs is its members, rows without elements too', () => {
    const float = (data: number[]) => ({ dim: 2n, data: { $case: 'floatVector' as const, value: { data } } });
    const int = (data: number[]) => ({ data: { $case: 'intData' as const, value: { data } } });
    const vectors = { dim: 2n, data: [float([1, 2, 3, 4]), float([]), float([5, 6])], elementType: DataType.FloatVector };
    const ints = { data: [int([1, -2]), int([]), int([3])], elementType: DataType.Int32 };
    const message = {
      type: DataType.ArrayOfStruct,
      fieldName: 's',
      field: {
        $case: 'structArrays' as const,
        value: {
          fields: [
            {
              type: DataType.ArrayOfVector,
              fieldName: 'v',
              field: { $case: 'vectors' as const, value: { dim: 2n, data: { $case: 'vectorArray' as const, value: vectors } } },
            },
            {
              type: DataType.Array,
              fieldName: 'i',
              field: { $case: 'scalars' as const, value: { data: { $case: 'arrayData' as const, value: ints } } },
            },
          ],
        },
      },
    };
    const request = InsertRequest.fromPartial({ fieldsData: [message], numRows: 3 });
    const [decoded] = decodeInsertRequest(InsertRequest.encode(request).finish()).fields;
    const offsets = Int32Array.of(0, 2, 2, 3);
    expect(decoded.payload).toEqual({
      kind: 'struct',
      members: [
        {
          ...{ name: 'v', type: 106, isDynamic: false, validData: undefined },
          payload: {
            kind: 'vectorArray',
            dim: 2,
            elementType: 101,
            offsets,
            elements: { kind: 'floatVector', dim: 2, values: Float32Array.of(1, 2, 3, 4, 5, 6) },
          },
        },
        {
          ...{ name: 'i', type: 22, isDynamic: false, validData: undefined },
          payload: { kind: 'array', elementType: 4, offsets, elements: { kind: 'int', values: Int32Array.of(1, -2, 3) } },
        },
      ],
    });
    const torn = structuredClone(message);
    torn.field.value.fields[0].field.value.data.value.data[0] = float([1, 2, 3]);
    const bad = InsertRequest.encode(InsertRequest.fromPartial({ fieldsData: [torn], numRows: 3 })).finish();
    expect(() => decodeInsertRequest(bad)).toThrow(/no whole vectors/);
  });

  test('reads what only an upsert has', () => {
    const message = UpsertRequest.fromPartial({
      collectionName: 'c',
      partialUpdate: true,
      fieldOps: [{ fieldName: 'f', op: 1 }],
      numRows: 2,
    });
    expect(decodeUpsertRequest(UpsertRequest.encode(message).finish())).toMatchObject({
      partialUpdate: true,
      fieldOps: [{ fieldName: 'f', op: 1 }],
      numRows: 2,
    });
  });

  test('bytes that make no sense are InvalidParameter, never anything else', () => {
    const sample = InsertRequest.encode(
      InsertRequest.fromPartial({
        collectionName: 'c',
        fieldsData: [
          {
            fieldName: 'v',
            field: { $case: 'vectors', value: { dim: 2n, data: { $case: 'floatVector', value: { data: [1, 2, 3, 4] } } } },
          },
        ],
      }),
    ).finish();
    const attempt = (input: Uint8Array): void => {
      try {
        decodeInsertRequest(input);
      } catch (error) {
        expect(error).toBeInstanceOf(CairnError);
        expect((error as CairnError).codeName).toBe('InvalidParameter');
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), attempt), { numRuns: 2_000 });
    for (let cut = 0; cut < sample.length; cut++) attempt(sample.subarray(0, cut));
    fc.assert(
      fc.property(fc.nat(sample.length - 1), fc.nat(255), (at, value) => {
        const flipped = Uint8Array.from(sample);
        flipped[at] = value;
        attempt(flipped);
      }),
      { numRuns: 1_000 },
    );
    // Messages in messages in messages.
    let nested = Buffer.alloc(0);
    for (let i = 0; i < 5_000; i++)
      nested = Buffer.concat([Buffer.from([0x1a, 0x80 | (nested.length & 0x7f), nested.length >> 7]), nested]).subarray(0, 16_000);
    attempt(nested);
  });
});

describe('results straight to bytes', () => {
  test('decode to the same columns', () => {
    fc.assert(
      fc.property(
        fc.array(fieldData, { maxLength: 4 }),
        fc.array(float, { maxLength: 9 }),
        fc.array(int64, { maxLength: 9 }),
        (fieldsData, scores, ids) => {
          const fields = fieldsData.map((field, i) => ({ fieldId: 100 + i, raw: rawFromWire(field) }));
          const expected = fields.map(({ raw, fieldId }) => normal(rawFromWire(rawToWire(raw, BigInt(fieldId) as never))));
          const status = Status.fromPartial({ reason: 'ö', code: 3 });
          const query = QueryResults.decode(
            encodeQueryReply({
              status,
              fields,
              collectionName: 'c',
              outputFields: ['a', '', 'b'],
              sessionTs: 2n ** 63n + 5n,
              primaryFieldName: 'pk',
            }),
          );
          expect(query.fieldsData.map((field) => normal(rawFromWire(field)))).toEqual(expected);
          expect(query.fieldsData.map((field) => field.fieldId)).toEqual(fields.map((field) => BigInt(field.fieldId)));
          expect(query).toMatchObject({
            status,
            collectionName: 'c',
            outputFields: ['a', '', 'b'],
            sessionTs: 2n ** 63n + 5n,
            primaryFieldName: 'pk',
          });

          const search = SearchResults.decode(
            encodeSearchReply({
              status,
              collectionName: 'c',
              sessionTs: 7n,
              results: {
                numQueries: 2,
                topK: 10,
                fields,
                scores: Float32Array.from(scores),
                ids: { kind: 'long', values: BigInt64Array.from(ids) },
                topks: [0, ids.length],
                outputFields: ['x'],
                primaryFieldName: 'pk',
                searchedRows: 12_345_678_901,
                groupBy: undefined,
              },
            }),
          );
          expect(search.results).toMatchObject({
            numQueries: 2n,
            topK: 10n,
            topks: [0n, BigInt(ids.length)],
            outputFields: ['x'],
            allSearchCount: 12_345_678_901n,
          });
          expect(search.results?.scores).toEqual(Array.from(Float32Array.from(scores)));
          expect(search.results?.ids?.idField).toEqual({ $case: 'intId', value: { data: ids } });
          expect(search.results?.fieldsData.map((field) => normal(rawFromWire(field)))).toEqual(expected);
        },
      ),
      { numRuns: 200 },
    );
  });

  test('set the data oneof for no rows too: clients read it without a check', () => {
    const columns = [
      { name: 'l', type: DataType.Int64, payload: { kind: 'long', values: new BigInt64Array() } },
      { name: 't', type: DataType.VarChar, payload: { kind: 'text', offsets: new Int32Array(1), data: new Uint8Array() } },
      {
        name: 'a',
        type: DataType.Array,
        payload: { kind: 'array', elementType: DataType.Int64, offsets: new Int32Array(1), elements: { kind: 'none' } },
      },
      { name: 'v', type: DataType.FloatVector, payload: { kind: 'floatVector', dim: 3, values: new Float32Array() } },
      { name: 'b', type: DataType.BinaryVector, payload: { kind: 'binaryVector', dim: 8, data: new Uint8Array() } },
    ] as const;
    const fields = columns.map((raw) => ({ fieldId: 1, raw: { ...raw, isDynamic: false } }));
    const reply = QueryResults.decode(
      encodeQueryReply({ status: Status.create(), fields, collectionName: '', outputFields: [], sessionTs: 0n, primaryFieldName: '' }),
    );
    const cases = reply.fieldsData.map((field) =>
      field.field?.$case === ('struct_arrays' as never) ? undefined : (field.field?.value as { data?: { $case: string } })?.data?.$case,
    );
    expect(cases).toEqual(['longData', 'stringData', 'arrayData', 'floatVector', 'binaryVector']);
  });

  test('ids of strings, and a failed search without results', () => {
    const reply = SearchResults.decode(
      encodeSearchReply({
        status: Status.create(),
        collectionName: '',
        sessionTs: 0n,
        results: {
          numQueries: 1,
          topK: 1,
          fields: [],
          scores: Float32Array.of(1),
          ids: { kind: 'text', offsets: Int32Array.of(0, 2, 2), data: Buffer.from('hx') },
          topks: [2],
          outputFields: [],
          primaryFieldName: 'p',
          searchedRows: 0,
          groupBy: undefined,
        },
      }),
    );
    expect(reply.results?.ids?.idField).toEqual({ $case: 'strId', value: { data: ['hx', ''] } });
    const failed = SearchResults.decode(
      encodeSearchReply({ status: Status.fromPartial({ code: 100 }), collectionName: '', sessionTs: 0n, results: undefined }),
    );
    expect(failed.results).toBeUndefined();
  });
});

describe('numbers', () => {
  test('every 64-bit number survives writing and reading', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (value) => {
        const writer = new WireWriter(1);
        writer.varint64(Number(value & 0xffffffffn), Number(value >> 32n));
        expect(new WireReader(writer.finish()).varint64()).toBe(value);
      }),
    );
  });
});

test('a search with parts that are not built is refused by name', () => {
  const highlighter = Buffer.from([0xaa, 0x01, 0x00]);
  expect(() => decodeSearchRequest(highlighter)).toThrow(/not supported: highlighter in Search/);
});
