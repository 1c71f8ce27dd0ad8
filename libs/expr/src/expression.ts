import type { DataType } from '@cairn/schema';

/**
 * Typed filter tree: what the parser makes of text and a schema, what travels between services, and what is evaluated over columns.
 * Three-valued: a comparison with null is unknown, and unknown rows do not match. A path that a JSON value does not have, or whose value has
 * another type, makes a comparison false (and `!=` and `not in` true); it is unknown only where the whole JSON field is null.
 */
export type Literal = boolean | bigint | number | string;
/** A literal, or a list of them (JSON and arrays can hold lists). */
export type ListItem = Literal | readonly ListItem[];
export type CompareOp = '<' | '<=' | '>' | '>=' | '==' | '!=';
export type ArithmeticOp = '+' | '-' | '*' | '/' | '%' | '**' | '&' | '|' | '^' | '<<' | '>>';

/** A field, or a path into a JSON field; a key of the dynamic field is a path into $meta. Array elements: path of one number. */
export interface ColumnRef {
  readonly kind: 'column';
  readonly fieldId: number;
  readonly type: DataType;
  readonly elementType: DataType;
  readonly path: readonly (string | number)[];
  /** As the user wrote it, for messages. */
  readonly name: string;
}

export interface LiteralExpr {
  readonly kind: 'literal';
  readonly value: Literal;
}

export type ValueExpr =
  | ColumnRef
  | LiteralExpr
  | { readonly kind: 'list'; readonly values: readonly ListItem[] }
  | { readonly kind: 'arithmetic'; readonly op: ArithmeticOp; readonly left: ValueExpr; readonly right: ValueExpr }
  | { readonly kind: 'negate' | 'bitNot'; readonly value: ValueExpr }
  /** A time (µs) so many months and µs later. */
  | { readonly kind: 'shift'; readonly time: ValueExpr; readonly months: number; readonly micros: bigint }
  | { readonly kind: 'arrayLength'; readonly column: ColumnRef };

export type Expr =
  | { readonly kind: 'true' }
  | { readonly kind: 'false' }
  | { readonly kind: 'compare'; readonly op: CompareOp; readonly left: ValueExpr; readonly right: ValueExpr }
  | { readonly kind: 'in'; readonly value: ValueExpr; readonly list: readonly ListItem[]; readonly negated: boolean }
  | { readonly kind: 'like'; readonly column: ColumnRef; readonly pattern: string }
  | { readonly kind: 'regex'; readonly column: ColumnRef; readonly pattern: string; readonly negated: boolean }
  | { readonly kind: 'isNull'; readonly column: ColumnRef; readonly negated: boolean }
  | { readonly kind: 'exists'; readonly column: ColumnRef }
  | {
      readonly kind: 'contains';
      readonly column: ColumnRef;
      readonly mode: 'one' | 'all' | 'any';
      readonly values: readonly ListItem[];
      readonly json: boolean;
    }
  | { readonly kind: 'bool'; readonly value: ColumnRef }
  | { readonly kind: 'and' | 'or'; readonly parts: readonly Expr[] }
  | { readonly kind: 'not'; readonly part: Expr }
  | { readonly kind: 'randomSample'; readonly fraction: number; readonly part: Expr | undefined };

/** The family of values that an operand has; `json` is known only at the row. */
export type ValueFamily = 'bool' | 'int' | 'float' | 'string' | 'list' | 'json' | 'none';
