import { bitAt } from '@cairn/base';
import type { Column } from '@cairn/schema';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { deserializeExpr, evaluate, parseFilter, serializeExpr } from '../src/index.ts';
import { type Cell, columnOf, FIELDS, SCHEMA } from './fixtures.ts';
import { matches } from './reference.ts';

type Row = Record<keyof typeof FIELDS, Cell>;

const text = fc.oneof(
  fc.constantFrom('', 'a', 'ab', 'abc', 'b%', 'a_c', 'é', '😀x', 'x\n"y\\'),
  fc.string({ unit: 'binary', maxLength: 6 }),
);
const int64 = fc.oneof(fc.bigInt({ min: -3n, max: 3n }), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
const jsonLeaf = fc.oneof(
  fc.integer({ min: -3, max: 3 }),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  text,
  fc.boolean(),
  fc.constant(null),
);
const json = fc.dictionary(
  fc.constantFrom('a', 'b', 'k"\\', 'é'),
  fc.oneof(jsonLeaf, fc.array(jsonLeaf, { maxLength: 3 }), fc.dictionary(fc.constantFrom('a', 'c'), jsonLeaf)),
);
const jsonText = json.chain((value) => fc.constantFrom(JSON.stringify(value), JSON.stringify(value, null, 2)));
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: null, freq: 4 });
const float = fc.oneof(fc.constantFrom(0, -0, 0.5, 0.1, 3, -2), fc.float({ noNaN: true })).map(Math.fround);

const rowArbitrary: fc.Arbitrary<Row> = fc.record({
  id: int64,
  small: maybe(fc.bigInt({ min: -128n, max: 127n })),
  count: fc.bigInt({ min: -(2n ** 31n), max: 2n ** 31n - 1n }),
  price: float,
  ratio: maybe(fc.double({ noDefaultInfinity: true })),
  flag: fc.boolean(),
  name: maybe(text),
  tags: fc.array(text, { maxLength: 3 }),
  sizes: maybe(fc.array(int64, { maxLength: 3 })),
  doc: maybe(jsonText),
  vec: fc.constant('' as Cell),
  big: maybe(int64),
  meta: jsonText,
});

const quote = (value: string): string => JSON.stringify(value).replace(/[\u007f-\uffff]/g, (c) => c);
const ints = fc.oneof(fc.integer({ min: -130, max: 130 }).map(String), int64.map(String));
const floats = fc.oneof(fc.constantFrom('0.5', '0.1', '-2.5', '3.0', '1e300'), ints);
const strings = text.map(quote);
const op = fc.constantFrom('<', '<=', '>', '>=', '==', '!=');
const listOf = (values: fc.Arbitrary<string>) => fc.array(values, { maxLength: 12 }).map((items) => `[${items.join(', ')}]`);
const intField = fc.constantFrom('id', 'small', 'count', 'big', 'sizes[0]', 'sizes[2]');
const jsonField = fc.constantFrom('doc["a"]', 'doc["a"]["c"]', 'b', '$meta["a"]', 'a[0]', 'doc["k\\"\\\\"]', 'é');
const textField = fc.constantFrom('name', 'tags[0]', 'tags[1]');
const anyField = fc.oneof(intField, jsonField, textField, fc.constantFrom('price', 'ratio'));
const likeText = fc
  .array(fc.constantFrom('%', '_', 'a', 'b', 'c', 'é', '😀', '\\\\%', '\\\\_'), { maxLength: 6 })
  .map((parts) => `"${parts.join('')}"`);
const numeric = fc.oneof(
  intField,
  fc.constantFrom('price', 'ratio', 'doc["a"]', 'b', 'array_length(tags)', 'array_length(sizes)', 'array_length(a)'),
);

const leaf = fc.oneof(
  fc.tuple(intField, op, floats).map((p) => p.join(' ')),
  fc.tuple(floats, op, intField).map((p) => p.join(' ')),
  fc.tuple(fc.constantFrom('price', 'ratio'), op, floats).map((p) => p.join(' ')),
  fc.tuple(textField, op, strings).map((p) => p.join(' ')),
  fc.tuple(jsonField, op, fc.oneof(floats, strings, fc.constantFrom('true', 'false'))).map((p) => p.join(' ')),
  fc.tuple(intField, op, intField).map((p) => p.join(' ')),
  fc.tuple(floats, fc.constantFrom('<', '<='), intField, fc.constantFrom('<', '<='), floats).map((p) => p.join(' ')),
  fc.tuple(numeric, fc.constantFrom('+', '-', '*'), ints, op, floats).map((p) => p.join(' ')),
  fc.tuple(intField, fc.constantFrom('/', '%'), fc.constantFrom('2', '-3', '7'), op, ints).map((p) => p.join(' ')),
  fc.tuple(intField, fc.constantFrom('in', 'not in'), listOf(ints)).map((p) => p.join(' ')),
  fc.tuple(fc.constantFrom('price', 'ratio'), fc.constantFrom('in', 'not in'), listOf(floats)).map((p) => p.join(' ')),
  fc.tuple(textField, fc.constantFrom('in', 'not in'), listOf(strings)).map((p) => p.join(' ')),
  fc.tuple(jsonField, fc.constantFrom('in', 'not in'), listOf(fc.oneof(ints, strings))).map((p) => p.join(' ')),
  fc.tuple(fc.oneof(textField, jsonField), likeText).map(([f, p]) => `${f} like ${p}`),
  fc.tuple(anyField, fc.constantFrom('is null', 'is not null')).map((p) => p.join(' ')),
  jsonField.map((f) => `exists ${f}`),
  fc.constantFrom('flag', 'not flag', 'flag == false', 'doc["a"]', 'not b'),
  fc.tuple(strings, fc.constantFrom('array_contains', 'ARRAY_CONTAINS')).map(([v, f]) => `${f}(tags, ${v})`),
  fc.tuple(fc.constantFrom('any', 'all'), listOf(ints)).map(([mode, list]) => `array_contains_${mode}(sizes, ${list})`),
  fc
    .tuple(jsonField, fc.constantFrom('any', 'all'), listOf(fc.oneof(ints, strings)))
    .map(([f, mode, list]) => `json_contains_${mode}(${f}, ${list})`),
);
const { filter } = fc.letrec<{ filter: string }>((tie) => ({
  filter: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    fc.tuple(tie('filter'), fc.constantFrom('and', '&&', 'or', '||'), tie('filter')).map(([a, o, b]) => `(${a}) ${o} (${b})`),
    tie('filter').map((inner) => `not (${inner})`),
  ),
}));

describe('evaluate', () => {
  it('agrees with the row-by-row reading of the rules, whatever the filter and the rows', () => {
    fc.assert(
      fc.property(
        filter,
        fc.array(rowArbitrary, { minLength: 1, maxLength: 20 }),
        fc.bigInt({ min: 0n, max: 2n ** 20n }),
        (source, rows, mask) => {
          const expr = deserializeExpr(serializeExpr(parseFilter(source, SCHEMA)));
          const columns = new Map<number, Column>();
          for (const [key, f] of Object.entries(FIELDS)) {
            if (key !== 'vec')
              columns.set(
                f.id,
                columnOf(
                  f,
                  rows.map((row) => row[key as keyof Row]),
                ),
              );
          }
          const within = mask === 0n ? undefined : new Uint8Array([0, 8, 16].map((shift) => Number((mask >> BigInt(shift)) & 255n)));
          const bits = evaluate(expr, (id) => columns.get(id) as Column, rows.length, within);
          rows.forEach((row, i) => {
            const asked = within === undefined || bitAt(within, i);
            const cells = new Map(Object.entries(FIELDS).map(([key, f]) => [f.id, row[key as keyof Row]]));
            expect([source, i, bitAt(bits, i)]).toEqual([source, i, asked && matches(expr, cells)]);
          });
          for (let i = rows.length; i < bits.length * 8; i++) expect(bitAt(bits, i)).toBe(false);
        },
      ),
      { numRuns: 3000 },
    );
  });
});
