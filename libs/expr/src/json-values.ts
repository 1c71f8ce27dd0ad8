import { bitAt } from '@cairn/base';
import type { BytesColumn } from '@cairn/schema';
import type { ListItem } from './expression.ts';
import { findJson, jsonElements, jsonPath, jsonValue } from './json-scan.ts';

/** Kinds of JSON values that an index can hold. */
export type JsonKind = 'bool' | 'number' | 'text';

/** Values of one kind that stand at a path, with their rows, row by row. */
export interface JsonValues {
  readonly values: (boolean | number | string)[];
  readonly rows: number[];
  /** False when an integer was rounded to a double, or a text has no exact UTF-8 form. */
  exact: boolean;
}

export const noJsonValues = (): JsonValues => ({ values: [], rows: [], exact: true });

/** Adds what rows from..to-1 have at the path: the value, or with `elements` those of the list there. Values of other kinds are left out. */
export function addJsonValues(
  into: JsonValues,
  column: BytesColumn,
  path: readonly (string | number)[],
  kind: JsonKind,
  elements: boolean,
  from: number,
  to: number,
): void {
  const { data, offsets, validity } = column;
  const steps = jsonPath(path);
  for (let row = from; row < to; row++) {
    if (validity && !bitAt(validity, row)) continue;
    const span = findJson(data, offsets[row], offsets[row + 1], steps);
    if (!span) continue;
    if (!elements) add(into, jsonValue(data, span[0], span[1]), kind, row);
    else for (const item of jsonElements(data, span[0], span[1]) ?? []) add(into, item, kind, row);
  }
}

function add(into: JsonValues, item: ListItem | undefined, kind: JsonKind, row: number): void {
  if (typeof item === 'bigint' || typeof item === 'number') {
    if (kind !== 'number') return;
    const value = Number(item);
    into.exact &&= typeof item === 'number' || (Number.isFinite(value) && BigInt(value) === item);
    into.values.push(value);
  } else if (typeof item === 'string') {
    if (kind !== 'text') return;
    into.exact &&= item.isWellFormed();
    into.values.push(item);
  } else if (typeof item === 'boolean' && kind === 'bool') into.values.push(item);
  else return;
  into.rows.push(row);
}
