import type { ColumnRef, Expr, Literal, ValueExpr } from './expression.ts';
import { isLiteral } from './values.ts';

/** Calls `visit` for every column that the expression reads. */
export function visitColumns(expr: Expr, visit: (column: ColumnRef) => void): void {
  switch (expr.kind) {
    case 'compare':
      visitValue(expr.left, visit);
      visitValue(expr.right, visit);
      break;
    case 'in':
    case 'bool':
      visitValue(expr.value, visit);
      break;
    case 'like':
    case 'regex':
    case 'isNull':
    case 'exists':
    case 'contains':
      visit(expr.column);
      break;
    case 'and':
    case 'or':
      for (const part of expr.parts) visitColumns(part, visit);
      break;
    case 'not':
      visitColumns(expr.part, visit);
      break;
    default:
  }
}

function visitValue(value: ValueExpr, visit: (column: ColumnRef) => void): void {
  switch (value.kind) {
    case 'column':
      visit(value);
      break;
    case 'arithmetic':
      visitValue(value.left, visit);
      visitValue(value.right, visit);
      break;
    case 'shift':
      visitValue(value.time, visit);
      break;
    case 'negate':
    case 'bitNot':
      visitValue(value.value, visit);
      break;
    case 'arrayLength':
      visit(value.column);
      break;
    default:
  }
}

/** Columns that one value reads. */
export function columnsOfValue(value: ValueExpr): ColumnRef[] {
  const columns: ColumnRef[] = [];
  visitValue(value, (column) => columns.push(column));
  return columns;
}

/** Ids of the fields that the expression reads. */
export function fieldsOf(expr: Expr): Set<number> {
  const fields = new Set<number>();
  visitColumns(expr, (column) => fields.add(column.fieldId));
  return fields;
}

/**
 * The primary keys that a match must have, when the expression says so (`pk in […]`, `pk == x`, also as a part of an `and`); undefined when it
 * does not. The whole expression must still be evaluated on the rows of these keys.
 */
export function keyLookup(expr: Expr, pkFieldId: number): readonly Literal[] | undefined {
  const isKey = (value: ValueExpr): boolean => value.kind === 'column' && value.fieldId === pkFieldId;
  switch (expr.kind) {
    case 'in':
      return !expr.negated && isKey(expr.value) ? expr.list.filter(isLiteral) : undefined;
    case 'compare':
      return expr.op === '==' && isKey(expr.left) && expr.right.kind === 'literal' ? [expr.right.value] : undefined;
    case 'and': {
      const lists = expr.parts.map((part) => keyLookup(part, pkFieldId)).filter((list) => list !== undefined);
      return lists.reduce<readonly Literal[] | undefined>((best, list) => (best && best.length <= list.length ? best : list), undefined);
    }
    default:
      return undefined;
  }
}
