import { CairnError } from '@cairn/base';
import { type BytesColumn, type Column, DataType, type ListColumn } from '@cairn/schema';
import type { ColumnRef, ListItem, ValueExpr } from './expression.ts';
import { shiftTime } from './interval.ts';
import { findJson, type JsonPath, jsonLength, jsonPath, jsonValue } from './json-scan.ts';
import { calculate } from './values.ts';

/** Value of a row; undefined: it has none (path not there, index behind the end, division by zero). Null rows are the caller's. */
export type RowReader = (row: number) => ListItem | undefined;
export type ColumnSource = (fieldId: number) => Column;

/** Reader of any value expression, row by row: the general road, where no loop over raw buffers fits. */
export function rowReader(value: ValueExpr, columns: ColumnSource): RowReader {
  switch (value.kind) {
    case 'literal':
      return () => value.value;
    case 'list':
      return () => value.values;
    case 'column':
      return columnReader(value, columns);
    case 'arrayLength':
      return lengthReader(value.column, columns);
    case 'shift':
      return numeric(rowReader(value.time, columns), (time) =>
        typeof time === 'bigint' ? shiftTime(time, value.months, value.micros) : undefined,
      );
    case 'negate':
      return numeric(rowReader(value.value, columns), (number) => (typeof number === 'bigint' ? BigInt.asIntN(64, -number) : -number));
    case 'bitNot':
      return numeric(rowReader(value.value, columns), (number) => (typeof number === 'bigint' ? ~number : undefined));
    case 'arithmetic': {
      const left = rowReader(value.left, columns);
      const right = rowReader(value.right, columns);
      return (row) => {
        const a = left(row);
        const b = right(row);
        return isNumber(a) && isNumber(b) ? calculate(value.op, a, b) : undefined;
      };
    }
  }
}

const isNumber = (value: ListItem | undefined): value is number | bigint => typeof value === 'number' || typeof value === 'bigint';

function numeric(read: RowReader, apply: (value: number | bigint) => number | bigint | undefined): RowReader {
  return (row) => {
    const value = read(row);
    return isNumber(value) ? apply(value) : undefined;
  };
}

export function columnReader(ref: ColumnRef, columns: ColumnSource): RowReader {
  const column = columns(ref.fieldId);
  if (ref.type === DataType.Json) {
    const { data } = bytesOf(column, ref);
    const find = jsonFinder(column, ref);
    return (row) => {
      const span = find(row);
      return span && jsonValue(data, span[0], span[1]);
    };
  }
  if (ref.type !== DataType.Array) return cellReader(column, ref);
  const list = listOf(column, ref);
  const element = cellReader(list.child, ref);
  if (ref.path.length === 0) {
    return (row) => {
      const items: ListItem[] = [];
      for (let i = list.offsets[row]; i < list.offsets[row + 1]; i++) {
        const item = element(i);
        if (item === undefined) return undefined;
        items.push(item);
      }
      return items;
    };
  }
  const index = ref.path[0] as number;
  return (row) => (index < list.offsets[row + 1] - list.offsets[row] ? element(list.offsets[row] + index) : undefined);
}

/** Plain cells: integers as bigint (so that they compare and calculate as such), floats as number, text as string. */
export function cellReader(column: Column, ref: ColumnRef): RowReader {
  if (column.kind === 'fixed') {
    const { values } = column;
    if (column.type === DataType.Bool) return (row) => values[row] !== 0;
    if (values instanceof BigInt64Array) return (row) => values[row];
    if (values instanceof Float32Array || values instanceof Float64Array) return (row) => values[row];
    return (row) => BigInt(values[row]);
  }
  const { offsets, data } = bytesOf(column, ref);
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
  return (row) => bytes.toString('utf8', offsets[row], offsets[row + 1]);
}

/** Start and end of the value at the reference's path, per row. */
export function jsonFinder(column: Column, ref: ColumnRef): (row: number) => readonly [number, number] | undefined {
  const { offsets, data } = bytesOf(column, ref);
  const path: JsonPath = jsonPath(ref.path);
  return (row) => findJson(data, offsets[row], offsets[row + 1], path);
}

function lengthReader(ref: ColumnRef, columns: ColumnSource): RowReader {
  const column = columns(ref.fieldId);
  if (ref.type !== DataType.Json) {
    const { offsets } = listOf(column, ref);
    return (row) => BigInt(offsets[row + 1] - offsets[row]);
  }
  const { data } = bytesOf(column, ref);
  const find = jsonFinder(column, ref);
  return (row) => {
    const span = find(row);
    const length = span && jsonLength(data, span[0], span[1]);
    return length === undefined ? undefined : BigInt(length);
  };
}

export function bytesOf(column: Column, ref: ColumnRef): BytesColumn {
  if (column.kind !== 'bytes') throw new CairnError('Internal', `column of field ${ref.name} is ${column.kind}, bytes were expected`);
  return column;
}

export function listOf(column: Column, ref: ColumnRef): ListColumn {
  if (column.kind !== 'list') throw new CairnError('Internal', `column of field ${ref.name} is ${column.kind}, a list was expected`);
  return column;
}
