import { DataType } from '@cairn/schema';
import { columnsOfValue } from './analysis.ts';
import type { ColumnRef, Expr, ValueExpr } from './expression.ts';

/** Rough cost of one row, in ns on the machine this was measured on; only the order matters. */
const COLUMN_COST = { fixed: 3, text: 20, list: 200, json: 300 } as const;

export function costOf(expr: Expr): number {
  switch (expr.kind) {
    case 'and':
    case 'or':
      return expr.parts.reduce((sum, part) => sum + costOf(part), 0);
    case 'not':
      return costOf(expr.part);
    case 'compare':
      return valueCost(expr.left) + valueCost(expr.right);
    case 'in':
    case 'bool':
      return valueCost(expr.value) + 10;
    case 'isNull':
      return expr.column.path.length === 0 ? 1 : columnCost(expr.column);
    case 'like':
    case 'exists':
      return columnCost(expr.column);
    case 'regex':
    case 'contains':
      return columnCost(expr.column) + 300;
    default:
      return 1;
  }
}

function valueCost(value: ValueExpr): number {
  const own = value.kind === 'arithmetic' ? 50 : 0;
  return own + columnsOfValue(value).reduce((sum, column) => sum + columnCost(column), 0);
}

function columnCost(column: ColumnRef): number {
  if (column.type === DataType.Json) return COLUMN_COST.json;
  if (column.type === DataType.Array) return COLUMN_COST.list;
  return column.type === DataType.VarChar || column.type === DataType.String || column.type === DataType.Text
    ? COLUMN_COST.text
    : COLUMN_COST.fixed;
}
