import { CairnError, type CodeName } from '@cairn/base';
import { CollectionSchema, FieldSchema, FunctionSchema } from '@cairn/proto/milvus/schema';
import { describe, expect, it } from 'vitest';
import {
  addField,
  type Column,
  checkDynamicColumn,
  columnFromRaw,
  columnFromValues,
  DataType,
  decodeSchema,
  encodeSchema,
  fillDefaults,
  formatTimestamptz,
  mergeDynamic,
  parseTimestamptz,
  prepareNewSchema,
  type RawFieldData,
  type RawPayload,
  readTimeFields,
  schemaToWire,
  selectDynamicKeys,
  TimeZone,
  timeFieldsOf,
  valueAt,
} from '../src/index.ts';
import { field } from '../src/testing.ts';

type Parts = Partial<FieldSchema> & { params?: Record<string, string> };
const wireField = (name: string, dataType: number, { params = {}, ...more }: Parts = {}): FieldSchema => ({
  ...FieldSchema.create(),
  name,
  dataType: dataType as FieldSchema['dataType'],
  typeParams: Object.entries(params).map(([key, value]) => ({ key, value })),
  ...more,
});
const pk = wireField('id', DataType.Int64, { isPrimaryKey: true });
const vec = wireField('vec', DataType.FloatVector, { params: { dim: '4' } });
const collection = (fields: FieldSchema[], more: Partial<CollectionSchema> = {}): CollectionSchema => ({
  ...CollectionSchema.create(),
  name: 'books',
  fields,
  ...more,
});

const refuses = (work: () => unknown, code: CodeName, text: string): void => {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(CairnError);
    if (!(error instanceof CairnError)) return;
    expect({ code: error.codeName, message: error.message }).toEqual({ code, message: expect.stringContaining(text) });
    return;
  }
  throw new Error(`accepted, expected ${code} "${text}"`);
};

describe('a new schema', () => {
  it('gets field ids from 100 and the dynamic field last', () => {
    const schema = prepareNewSchema(collection([pk, vec], { enableDynamicField: true, autoID: true }));
    expect(schema.fields.map((of) => [of.id, of.name])).toEqual([
      [100, 'id'],
      [101, 'vec'],
      [102, '$meta'],
    ]);
    expect(schema.primaryKey.autoId).toBe(true);
    expect(schemaToWire(schema, { dynamicField: false }).fields.map((of) => of.name)).toEqual(['id', 'vec']);
  });

  it('survives its stored form, defaults and parameters included', () => {
    const schema = prepareNewSchema(
      collection(
        [
          pk,
          vec,
          wireField('n', DataType.Int64, { nullable: true, defaultValue: { data: { $case: 'longData', value: 2n ** 60n } } }),
          wireField('t', DataType.Timestamptz, { defaultValue: { data: { $case: 'stringData', value: '2025-01-01T02:00:00+02:00' } } }),
          wireField('s', DataType.VarChar, {
            params: { max_length: '9', 'mmap.enabled': 'true' },
            defaultValue: { data: { $case: 'stringData', value: 'x' } },
          }),
          wireField('a', DataType.Array, { elementType: DataType.VarChar, params: { max_length: '9', max_capacity: '3' } }),
        ],
        { enableDynamicField: true, description: 'd', properties: [{ key: 'p', value: 'q' }] },
      ),
    );
    expect(decodeSchema(encodeSchema(schema))).toEqual(schema);
    expect(schema.byName.get('t')?.defaultValue).toBe(1735689600000000n);
  });

  it.each<[string, FieldSchema[], CodeName, string, Partial<CollectionSchema>?]>([
    ['empty name', [pk, vec], 'InvalidParameter', 'Invalid collection name', { name: '' }],
    ['bad name', [pk, vec], 'InvalidParameter', 'Invalid collection name: 1a', { name: '1a' }],
    ['bad field name', [pk, wireField('a-b', DataType.Bool), vec], 'InvalidFieldName', 'Invalid field name: a-b'],
    ['long field name', [pk, wireField('a'.repeat(256), DataType.Bool), vec], 'InvalidFieldName', 'at most 255'],
    ['two fields of one name', [pk, vec, vec], 'InvalidParameter', 'duplicated field name: vec'],
    ['no key', [vec], 'InvalidParameter', 'primary key is not specified'],
    ['two keys', [pk, { ...pk, name: 'id2' }, vec], 'InvalidParameter', 'more than one primary key'],
    [
      'key of another type',
      [wireField('id', DataType.Int32, { isPrimaryKey: true }), vec],
      'InvalidParameter',
      'should be Int64 or VarChar',
    ],
    ['nullable key', [{ ...pk, nullable: true }, vec], 'InvalidParameter', 'cannot be nullable'],
    ['auto id elsewhere', [pk, wireField('n', DataType.Int64, { autoID: true }), vec], 'InvalidParameter', 'only the primary field'],
    ['no vector', [pk], 'InvalidParameter', 'does not contain vector field'],
    ['no dim', [pk, wireField('v', DataType.FloatVector)], 'InvalidParameter', 'dimension is not defined'],
    ['dim 0', [pk, wireField('v', DataType.FloatVector, { params: { dim: '0' } })], 'InvalidParameter', 'invalid dimension: 0'],
    [
      'dim of letters',
      [pk, wireField('v', DataType.FloatVector, { params: { dim: 'ten' } })],
      'InvalidParameter',
      'invalid dimension: ten',
    ],
    [
      'dim too large',
      [pk, wireField('v', DataType.FloatVector, { params: { dim: '32769' } })],
      'InvalidParameter',
      'invalid dimension: 32769',
    ],
    ['binary dim', [pk, wireField('v', DataType.BinaryVector, { params: { dim: '12' } })], 'InvalidParameter', 'multiple of 8'],
    [
      'sparse dim',
      [pk, wireField('v', DataType.SparseFloatVector, { params: { dim: '12' } })],
      'InvalidParameter',
      'dim should not be specified',
    ],
    ['varchar without length', [pk, vec, wireField('s', DataType.VarChar)], 'InvalidParameter', 'max_length'],
    ['varchar too long', [pk, vec, wireField('s', DataType.VarChar, { params: { max_length: '65536' } })], 'InvalidParameter', '1 ~ 65535'],
    [
      'array capacity',
      [pk, vec, wireField('a', DataType.Array, { elementType: 5, params: { max_capacity: '4097' } })],
      'InvalidParameter',
      '1 ~ 4096',
    ],
    [
      'array of JSON',
      [pk, vec, wireField('a', DataType.Array, { elementType: 23, params: { max_capacity: '4' } })],
      'InvalidParameter',
      'element type Json',
    ],
    [
      'default of another type',
      [pk, vec, wireField('n', DataType.Int8, { defaultValue: { data: { $case: 'stringData', value: '' } } })],
      'InvalidParameter',
      '(n)',
    ],
    [
      'default out of range',
      [pk, vec, wireField('n', DataType.Int8, { defaultValue: { data: { $case: 'intData', value: 300 } } })],
      'InvalidParameter',
      '300',
    ],
    [
      'two partition keys',
      [pk, vec, ...['a', 'b'].map((n) => wireField(n, 5, { isPartitionKey: true }))],
      'InvalidParameter',
      'more than one partition key',
    ],
    ['65 fields', [pk, vec, ...Array.from({ length: 63 }, (_, i) => wireField(`f${i}`, 1))], 'InvalidParameter', 'limited to 64'],
    ['Text', [pk, vec, wireField('g', DataType.Text)], 'NotSupported', 'Text'],
    ['unknown type', [pk, vec, wireField('g', 77)], 'IllegalSchema', '77'],
    ['functions', [pk, vec], 'NotSupported', 'bm', { functions: [{ ...FunctionSchema.create(), name: 'bm' }] }],
  ])('is refused: %s', (_name, fields, code, text, more = {}) => {
    refuses(() => prepareNewSchema(collection(fields, more)), code, text);
  });

  it('takes another field later only when rows written before can have it', () => {
    const schema = prepareNewSchema(collection([pk, vec], { enableDynamicField: true }));
    const more = addField(schema, wireField('n', DataType.Int32, { nullable: true }), 103);
    expect(more.fields.map((of) => of.name)).toEqual(['id', 'vec', 'n', '$meta']);
    refuses(() => addField(schema, wireField('n', DataType.Int32), 103), 'InvalidParameter', 'must be nullable');
    refuses(() => addField(schema, wireField('vec', DataType.Int32, { nullable: true }), 103), 'InvalidParameter', 'duplicated');
  });
});

const raw = (payload: RawPayload, validData?: boolean[]): RawFieldData => ({ name: 'f', type: 0, isDynamic: false, validData, payload });
const texts = (kind: 'text' | 'json', ...values: string[]): RawPayload => {
  const parts = values.map((value) => Buffer.from(value));
  return {
    kind,
    offsets: Int32Array.from([0, ...parts.map((_, i) => Buffer.concat(parts.slice(0, i + 1)).byteLength)]),
    data: Buffer.concat(parts),
  };
};
const ints = (...values: number[]): RawPayload => ({ kind: 'int', values: Int32Array.from(values) });
const floats = (dim: number, ...values: number[]): RawPayload => ({ kind: 'floatVector', dim, values: Float32Array.from(values) });
const sparse = (...pairs: number[]): RawPayload => {
  const data = new DataView(new ArrayBuffer(pairs.length * 4));
  for (const [i, n] of pairs.entries()) i % 2 === 0 ? data.setUint32(i * 4, n, true) : data.setFloat32(i * 4, n, true);
  return { kind: 'sparseVector', dim: 0, offsets: Int32Array.of(0, pairs.length * 4), data: new Uint8Array(data.buffer) };
};
const list = (column: Column): unknown[] => Array.from({ length: column.length }, (_, row) => valueAt(column, row));

describe('inserted data', () => {
  const float = field(DataType.FloatVector, { dim: 2 });
  const short = field(DataType.VarChar, { maxLength: 3 });
  const array = field(DataType.Array, { elementType: DataType.Int8, maxCapacity: 2 });
  const arrayOf = (offsets: number[], ...values: number[]): RawPayload => ({
    kind: 'array',
    elementType: DataType.Int8,
    offsets: Int32Array.from(offsets),
    elements: { kind: 'int', values: Int32Array.from(values) },
  });
  it.each<[string, ReturnType<typeof field>, RawFieldData, number, string]>([
    ['too few rows', field(DataType.Int32), raw(ints(1)), 2, '1 values were sent for 2 rows'],
    ['int8 300', field(DataType.Int8), raw(ints(1, 300)), 2, 'value 300 at position 1 is out of range of Int8'],
    ['int16 out of range', field(DataType.Int16), raw(ints(-32769)), 1, '-32769'],
    ['another carrier', field(DataType.Int64), raw(ints(1)), 1, 'does not fit type Int64'],
    ['text over max_length', short, raw(texts('text', 'ab', 'äöü')), 2, 'length 6 of the text at row 1 exceeds max_length 3'],
    ['broken UTF-8', short, raw({ kind: 'text', offsets: Int32Array.of(0, 1), data: Uint8Array.of(0xff) }), 1, 'UTF-8'],
    ['wrong dim', float, raw(floats(3, 1, 2, 3)), 1, "the dim (3) of the vectors is not equal to the schema's dim (2)"],
    ['torn vector', float, raw(floats(2, 1, 2, 3)), 1, 'not a multiple of dim 2'],
    ['NaN', float, raw(floats(2, 1, 2, 3, Number.NaN)), 2, 'NaN at row 1'],
    ['infinity', float, raw(floats(2, Number.POSITIVE_INFINITY, 2)), 1, 'Infinity at row 0'],
    [
      'half NaN',
      field(DataType.Float16Vector, { dim: 2 }),
      raw({ kind: 'float16Vector', dim: 2, data: Uint8Array.of(0, 0, 0, 0x7e) }),
      1,
      'NaN',
    ],
    ['bad JSON', field(DataType.Json), raw(texts('json', '{}', '{')), 2, 'row 1 is not valid JSON'],
    ['array over capacity', array, raw(arrayOf([0, 3], 1, 2, 3)), 1, 'array of 3 elements at row 0 exceeds max_capacity 2'],
    ['element out of range', array, raw(arrayOf([0, 1], 200)), 1, '200'],
    ['sparse NaN', field(DataType.SparseFloatVector), raw(sparse(1, Number.NaN)), 1, 'NaN'],
    ['sparse negative', field(DataType.SparseFloatVector), raw(sparse(1, -1)), 1, 'negative'],
    ['sparse repeated', field(DataType.SparseFloatVector), raw(sparse(7, 1, 3, 1, 7, 1)), 1, 'index 7 comes twice'],
    ['null where none may be', field(DataType.Int32), raw(ints(1), [true, false]), 2, 'row 1 has no value'],
    ['flags of another length', field(DataType.Int32, { nullable: true }), raw(ints(1), [true, false]), 3, '2 entries for 3 rows'],
    ['no time', field(DataType.Timestamptz), raw(texts('text', '2025-02-30T00:00:00Z')), 1, '2025-02-30'],
  ])('is refused: %s', (_name, of, data, rows, text) => {
    refuses(() => columnFromRaw(of, data, rows), 'InvalidParameter', text);
  });

  it('may be compact or dense where rows are null', () => {
    const of = field(DataType.Int32, { nullable: true });
    expect(list(columnFromRaw(of, raw(ints(5, 6), [true, false, true]), 3))).toEqual([5, null, 6]);
    expect(list(columnFromRaw(of, raw(ints(5, 9, 6), [true, false, true]), 3))).toEqual([5, null, 6]);
    expect(list(columnFromRaw(of, raw({ kind: 'none' }, [false, false]), 2))).toEqual([null, null]);
    const vector = columnFromRaw({ ...float, nullable: true }, raw(floats(2, 1, 2), [false, true]), 2);
    expect(vector.kind === 'vector' && [...new Float32Array(vector.data.buffer, vector.data.byteOffset, 4)]).toEqual([0, 0, 1, 2]);
  });

  it('gets the default where a row has no value', () => {
    const of = field(DataType.Int32, { defaultValue: 8 });
    const column = columnFromRaw(of, raw(ints(5), [true, false]), 2);
    expect([list(column), column.validity]).toEqual([[5, 8], null]);
  });

  it('has its sparse vectors sorted by index', () => {
    const column = columnFromRaw(field(DataType.SparseFloatVector), raw(sparse(9, 1, 3, 2)), 1);
    expect(valueAt(column, 0)).toEqual((sparse(3, 2, 9, 1) as { data: Uint8Array }).data);
  });

  it('does not copy float vectors', () => {
    const payload = floats(2, 1, 2);
    const column = columnFromRaw(float, raw(payload), 1);
    expect(column.kind === 'vector' && payload.kind === 'floatVector' && column.data.buffer === payload.values.buffer).toBe(true);
  });

  it('is filled with defaults, nulls and empty objects, or refused by name', () => {
    const schema = prepareNewSchema(
      collection([{ ...pk, autoID: true }, vec, wireField('n', DataType.Int32, { nullable: true })], { enableDynamicField: true }),
    );
    const vectors = columnFromValues(schema.vectorFields[0], [new Uint8Array(16)]);
    const filled = fillDefaults(schema, new Map([[101, vectors]]), 1);
    expect([...filled.keys()]).toEqual([101, 102, 103]);
    expect(Buffer.from(valueAt(filled.get(103) as Column, 0) as Uint8Array).toString()).toBe('{}');
    refuses(() => fillDefaults(schema, new Map(), 1), 'InvalidParameter', '"vec"');
  });
});

describe('the dynamic field', () => {
  const meta = (...values: string[]): Column =>
    columnFromValues(
      field(DataType.Json),
      values.map((value) => Buffer.from(value)),
    );
  const shown = (column: Column): string[] => list(column).map((value) => Buffer.from(value as Uint8Array).toString());

  it('keeps asked keys only, and merges with the update on top', () => {
    const [a, b] = [meta('{"x":1,"y":[2]}', '{}'), meta('{"y":3}', '{"z":null}')];
    if (a.kind !== 'bytes' || b.kind !== 'bytes') throw new Error('kind');
    expect(shown(selectDynamicKeys(a, ['y', 'q']))).toEqual(['{"y":[2]}', '{}']);
    expect(shown(mergeDynamic(a, b))).toEqual(['{"x":1,"y":3}', '{"z":null}']);
  });

  it('takes objects without keys of other fields', () => {
    const schema = prepareNewSchema(collection([pk, vec], { enableDynamicField: true }));
    checkDynamicColumn(schema, meta('{"x":1}'));
    refuses(() => checkDynamicColumn(schema, meta('[1]')), 'InvalidParameter', 'not a JSON object');
    refuses(() => checkDynamicColumn(schema, meta('{}', '{"vec":1}')), 'InvalidParameter', 'row 1 has the key "vec"');
  });
});

describe('times with zone', () => {
  it.each([
    ['2025-01-01T00:00:00Z', 1735689600000000n, '2025-01-01T00:00:00Z'],
    ['2025-01-01T08:00:00.5+08:00', 1735689600500000n, '2025-01-01T00:00:00.5Z'],
    ['1969-12-31T23:59:59.999999Z', -1n, '1969-12-31T23:59:59.999999Z'],
    ['2025-01-01 00:00:00', 1735689600000000n, '2025-01-01T00:00:00Z'],
  ])('%s', (text, micros, back) => {
    expect(parseTimestamptz(text)).toBe(micros);
    expect(formatTimestamptz(micros)).toBe(back);
  });

  it.each([
    ['Asia/Shanghai', '2025-01-01 08:00:00', '2025-01-01T00:00:00Z', '2025-01-01T08:00:00+08:00'],
    ['America/New_York', '2025-07-01T12:00:00.25', '2025-07-01T16:00:00.25Z', '2025-07-01T12:00:00.25-04:00'],
    ['Asia/Kolkata', '1969-12-31T23:59:59', '1969-12-31T18:29:59Z', '1969-12-31T23:59:59+05:30'],
    // Shown twice: the first; left out: the time after it.
    ['Europe/Berlin', '2025-10-26T02:30:00', '2025-10-26T00:30:00Z', '2025-10-26T02:30:00+02:00'],
    ['Europe/Berlin', '2025-03-30T02:30:00', '2025-03-30T01:30:00Z', '2025-03-30T03:30:00+02:00'],
  ])('in %s, %s', (name, text, utc, shown) => {
    const zone = TimeZone.of(name);
    const micros = parseTimestamptz(text, zone);
    expect(formatTimestamptz(micros)).toBe(utc);
    expect(formatTimestamptz(micros, zone)).toBe(shown);
    // An offset of its own counts, whatever the zone.
    expect(parseTimestamptz(utc, zone)).toBe(micros);
  });

  it('shows the fields of a time as clocks of the zone do', () => {
    const micros = parseTimestamptz('2024-12-31T23:05:06.000789Z');
    const fields = readTimeFields('year, month,day hour minute second microsecond');
    expect(timeFieldsOf(micros, fields, TimeZone.of('Asia/Tokyo'))).toEqual([2025, 1, 1, 8, 5, 6, 789]);
    refuses(() => readTimeFields('year, week'), 'InvalidParameter', '"week" is none of year');
  });

  it.each(['error', '', '+08:00', 'Mars/Olympus'])('"%s" is no zone', (name) =>
    refuses(() => TimeZone.of(name), 'InvalidParameter', `invalid IANA time zone "${name}"`),
  );

  it('refuses offsets that no clock has', () => {
    refuses(() => parseTimestamptz('2025-01-01T00:00:00+15:00'), 'InvalidParameter', 'out of the range [-12:00, +14:00]');
  });
});
