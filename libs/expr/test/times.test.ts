import { DataType, formatTimestamptz, parseTimestamptz, TimeZone } from '@cairn/schema';
import { describe, expect, it } from 'vitest';
import { deserializeExpr, evaluate, type FilterOptions, parseFilter, serializeExpr } from '../src/index.ts';
import { columnOf, field, schemaOf } from './fixtures.ts';

const at = field(101, 'at', DataType.Timestamptz, { nullable: true });
const schema = schemaOf([field(100, 'id', DataType.Int64, { isPrimaryKey: true }), at]);
const TIMES = ['2024-01-31T10:00:00Z', '2024-02-29T00:00:00Z', '2025-01-01T00:00:00.000001Z', '1969-12-31T23:59:59.9Z', undefined];
const column = columnOf(
  at,
  TIMES.map((text) => (text === undefined ? null : parseTimestamptz(text))),
);

/** Rows of TIMES that match, through the form that travels between services. */
function matching(filter: string, options?: FilterOptions): number[] {
  const expr = deserializeExpr(serializeExpr(parseFilter(filter, schema, {}, options)));
  const bits = evaluate(expr, () => column, TIMES.length);
  return TIMES.flatMap((_, row) => ((bits[row >> 3] >> (row & 7)) & 1 ? [row] : []));
}

describe('times in filters', () => {
  it('are compared to the microsecond, and null is no match', () => {
    expect(matching("at > ISO '2025-01-01T00:00:00Z'")).toEqual([2]);
    expect(matching("at != ISO '2025-01-01T00:00:00.000001Z'")).toEqual([0, 1, 3]);
    expect(matching("ISO '1970-01-01T00:00:00Z' <= at")).toEqual([0, 1, 2]);
  });

  it('without an offset are times of the zone, not of the server', () => {
    expect(matching("at == ISO '2024-01-31T10:00:00'")).toEqual([0]);
    expect(matching("at == ISO '2024-01-31T18:00:00'", { zone: TimeZone.of('Asia/Shanghai') })).toEqual([0]);
    expect(matching("at == ISO '2024-01-31T10:00:00Z'", { zone: TimeZone.of('Asia/Shanghai') })).toEqual([0]);
  });

  it('are moved by an interval: months by the calendar, a day too many goes on into the next month', () => {
    expect(matching("at + INTERVAL 'P1DT12H30M5S' == ISO '2024-02-01T22:30:05Z'")).toEqual([0]);
    expect(matching("at - INTERVAL 'P1Y' == ISO '2023-03-01T00:00:00Z'")).toEqual([1]);
    expect(matching("at + INTERVAL 'P1M' == ISO '2024-03-02T10:00:00Z'")).toEqual([0]);
    expect(matching("at + INTERVAL 'P1M1D' + INTERVAL 'PT1S' == ISO '2024-03-30T00:00:01Z'")).toEqual([1]);
    expect(matching("ISO '1970-01-31T23:59:59.9Z' == at + interval 'P1M'")).toEqual([3]);
    expect(matching("at + INTERVAL 'P0D' != ISO '2024-02-29T00:00:00Z'")).toEqual([0, 2, 3]);
    expect(matching("ISO '2024-01-01T00:00:00Z' < at - INTERVAL 'P1M' < ISO '2024-02-01T00:00:00Z'")).toEqual([1]);
  });

  it('a time moved outside of the calendar matches nothing', () => {
    expect(matching("at + INTERVAL 'P999999999Y' > ISO '2024-02-29T00:00:00Z'")).toEqual([]);
    expect(formatTimestamptz(0n)).toBe('1970-01-01T00:00:00Z');
  });

  it.each([
    ["at + INTERVAL 'P1X' > ISO '2025-01-01T00:00:00Z'", 'INTERVAL needs a duration such as "P1DT12H" at position 14'],
    ["at + INTERVAL 'P' > ISO '2025-01-01T00:00:00Z'", 'INTERVAL needs a duration'],
    ["at + INTERVAL 'P1DT' > ISO '2025-01-01T00:00:00Z'", 'INTERVAL needs a duration'],
    ["id + INTERVAL 'P1D' > 5", 'Timestamptz fields only at position 3'],
    ["INTERVAL 'P1D' > at", 'INTERVAL goes after + or -'],
    ["at > ISO '2025-02-30T00:00:00Z'", 'is not an ISO 8601 time'],
    ["at > ISO '2025-01-01T00:00:00+99:00'", 'out of the range'],
  ])('%s is refused', (filter, message) => expect(() => parseFilter(filter, schema)).toThrow(message));
});
