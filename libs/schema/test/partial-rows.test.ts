import { CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import { describe, expect, it } from 'vitest';
import {
  type Column,
  columnFromValues,
  DataType,
  jsonMembers,
  keyColumn,
  type ListOp,
  makeBatch,
  mergePartialRows,
  type PlainValue,
  prepareNewSchema,
  selectDynamicKeys,
  valueAt,
} from '../src/index.ts';

const schema = prepareNewSchema(
  WireSchema.fromPartial({
    name: 'things',
    enableDynamicField: true,
    fields: [
      { name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
      { name: 'vec', dataType: DataType.FloatVector, typeParams: [{ key: 'dim', value: '2' }] },
      {
        name: 'tags',
        dataType: DataType.Array,
        elementType: DataType.VarChar,
        nullable: true,
        typeParams: [
          { key: 'max_length', value: '10' },
          { key: 'max_capacity', value: '4' },
        ],
      },
      { name: 'count', dataType: DataType.Int32, defaultValue: { data: { $case: 'intData', value: 7 } } },
    ],
  }),
);
const fields = schema.byName;
const field = (name: string) => {
  const found = name === '$meta' ? schema.dynamicField : fields.get(name);
  if (!found) throw new Error(name);
  return found;
};
const json = (text: string) => Buffer.from(text);
const vec = (...values: number[]) => new Uint8Array(new Float32Array(values).buffer);
const column = (name: string, values: readonly PlainValue[]): readonly [number, Column] => [
  field(name).id,
  columnFromValues(field(name), values),
];

const stored = makeBatch([
  column('id', [1n, 2n, 3n]),
  column('vec', [vec(1, 1), vec(2, 2), vec(3, 3)]),
  column('tags', [['a', 'b', 'a'], null, []]),
  column('count', [10, 20, 30]),
  column('$meta', [json('{"big": 9007199254740993, "u":"\\u00e9"}'), json('{}'), json('{"k":[1,{"x":"}"}]}')]),
]);

function merged(keys: bigint[], sent: Record<string, readonly PlainValue[]>, ops: Record<string, ListOp> = {}): Record<string, unknown>[] {
  const batch = mergePartialRows(schema, {
    stored,
    keys: keyColumn(keys),
    sent: makeBatch([column('id', keys), ...Object.entries(sent).map(([name, values]) => column(name, values))]),
    ops: new Map(Object.entries(ops).map(([name, op]) => [field(name).id, op])),
  });
  return keys.map((_, row) =>
    Object.fromEntries(
      schema.fields.map(({ id, name }) => {
        const value = valueAt(batch.columns.get(id) as Column, row);
        return [name, value instanceof Uint8Array && name === '$meta' ? Buffer.from(value).toString() : value];
      }),
    ),
  );
}

describe('rows of a partial update', () => {
  it('keep what was not sent, in the order sent', () => {
    const [three, one] = merged([3n, 1n], { count: [31, 11] });
    expect(three).toEqual({ id: 3n, vec: vec(3, 3), tags: [], count: 31, $meta: '{"k":[1,{"x":"}"}]}' });
    expect(one).toMatchObject({ id: 1n, vec: vec(1, 1), tags: ['a', 'b', 'a'], count: 11 });
  });

  it('merge keys of the dynamic field without touching the spelling of values', () => {
    const [one, two] = merged([1n, 2n], { $meta: [json('{"u":1,"new":18446744073709551615}'), json('{}')] });
    expect(one.$meta).toBe('{"big": 9007199254740993,"u":1,"new":18446744073709551615}');
    expect(two.$meta).toBe('{}');
  });

  it('append to arrays; a null makes one, a null sent changes nothing', () => {
    const tags = merged([1n, 2n, 3n], { tags: [['c'], ['x'], null] }, { tags: 'append' }).map((row) => row.tags);
    expect(tags).toEqual([['a', 'b', 'a', 'c'], ['x'], []]);
    expect(() => merged([1n], { tags: [['c', 'd']] }, { tags: 'append' })).toThrow(
      /field "tags": row 0 would have 5 elements, max_capacity is 4/,
    );
  });

  it('remove every equal element from arrays', () => {
    const tags = merged([1n, 2n, 3n], { tags: [['a', 'z'], ['x'], ['y']] }, { tags: 'remove' }).map((row) => row.tags);
    expect(tags).toEqual([['b'], null, []]);
  });

  it('are new where the key is not stored: defaults are filled, a required field is named', () => {
    expect(merged([9n, 1n], { vec: [vec(9, 9), vec(8, 8)] })).toMatchObject([
      { id: 9n, vec: vec(9, 9), tags: null, count: 7, $meta: '{}' },
      { id: 1n, vec: vec(8, 8), count: 10 },
    ]);
    expect(merged([9n], { vec: [vec(9, 9)], tags: [['n']] }, { tags: 'append' })).toMatchObject([{ tags: ['n'] }]);
    expect(merged([9n], { vec: [vec(9, 9)], tags: [['n']] }, { tags: 'remove' })).toMatchObject([{ tags: [] }]);
    expect(() => merged([1n, 9n], { count: [1, 2] })).toThrow(/field "vec".*key 9 is not stored/);
  });
});

describe('members of a JSON object', () => {
  it('are its own bytes', () => {
    const text = ' { "a\\"b" : 1e400 , "é":{"x":[1,2,"}"]} ,"c":"\\\\","d":-0 } ';
    const members = jsonMembers(Buffer.from(text));
    expect(members.map(({ key, text }) => [key, Buffer.from(text).toString()])).toEqual([
      ['a"b', '"a\\"b" : 1e400'],
      ['é', '"é":{"x":[1,2,"}"]}'],
      ['c', '"c":"\\\\"'],
      ['d', '"d":-0'],
    ]);
    expect(jsonMembers(Buffer.from('{}'))).toEqual([]);
  });

  it('chosen by key keep big numbers', () => {
    const [, from] = column('$meta', [json('{"a":9007199254740993,"b":2}')]);
    if (from.kind !== 'bytes') throw new Error('bytes');
    expect(Buffer.from(selectDynamicKeys(from, ['a']).data).toString()).toBe('{"a":9007199254740993}');
  });
});
