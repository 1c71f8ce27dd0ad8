import { type CollectionSchema, DataType, DYNAMIC_FIELD_NAME, type Field } from '@cairn/schema';
import type { ColumnRef } from './expression.ts';
import { ParseProblem, UnsupportedPart } from './parse-problem.ts';
import { familyOfColumn } from './values.ts';

/** Longest name that is looked at for a near one; the search is quadratic in it. */
const NEAR_NAME_LENGTH = 64;

/** Turns names and paths of a filter into columns of a schema. A name that no field has is a key of the dynamic field, when there is one. */
export class FieldNames {
  readonly #schema: CollectionSchema;

  constructor(schema: CollectionSchema) {
    this.#schema = schema;
  }

  column(name: string, path: readonly (string | number)[], text: string, position: number): ColumnRef {
    const dynamic = this.#schema.dynamicField;
    const field = this.#schema.byName.get(name) ?? (name === DYNAMIC_FIELD_NAME ? dynamic : undefined);
    if (!field) {
      if (name === '$') throw new UnsupportedPart('struct fields');
      if (!dynamic) throw new ParseProblem(`field ${name} does not exist${this.#hint(name)}`, position);
      return {
        kind: 'column',
        fieldId: dynamic.id,
        type: dynamic.type,
        elementType: dynamic.elementType,
        path: [name, ...path],
        name: text,
      };
    }
    this.#checkPath(field, path, position);
    return { kind: 'column', fieldId: field.id, type: field.type, elementType: field.elementType, path, name: text };
  }

  isArray(column: ColumnRef): boolean {
    return column.type === DataType.Array;
  }

  checkList(column: ColumnRef, name: string, position: number): void {
    const family = familyOfColumn(column);
    if (family !== 'list' && family !== 'json')
      throw new ParseProblem(`${name} needs an array or JSON, field ${column.name} is none`, position);
  }

  #checkPath(field: Field, path: readonly (string | number)[], position: number): void {
    if (path.length === 0 || field.type === DataType.Json) return;
    if (field.type === DataType.ArrayOfStruct || field.type === DataType.Struct) throw new UnsupportedPart('struct fields');
    if (field.type !== DataType.Array)
      throw new ParseProblem(`field ${field.name} is neither JSON nor an array: it has no elements`, position);
    if (path.length > 1 || typeof path[0] !== 'number')
      throw new ParseProblem(`an element of field ${field.name} is named by one number`, position);
  }

  #hint(name: string): string {
    if (name.length > NEAR_NAME_LENGTH) return '';
    let best = '';
    let least = Math.max(2, Math.floor(name.length / 3)) + 1;
    for (const candidate of this.#schema.byName.keys()) {
      if (candidate.length > NEAR_NAME_LENGTH) continue;
      const distance = editDistance(name, candidate);
      if (distance < least) [best, least] = [candidate, distance];
    }
    return best === '' ? '' : `, did you mean ${best}?`;
  }
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length];
}
