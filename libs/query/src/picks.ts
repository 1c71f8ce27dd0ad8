import { type Column, concatColumns, takeColumn } from '@cairn/schema';

/** Chosen rows out of several parts, in result order: the i-th is row `rows[i]` of part `parts[i]`. */
export interface Picks {
  readonly parts: Int32Array;
  readonly rows: Int32Array;
}

export class PickList {
  readonly #parts: number[] = [];
  readonly #rows: number[] = [];

  add(part: number, row: number): void {
    this.#parts.push(part);
    this.#rows.push(row);
  }

  get length(): number {
    return this.#rows.length;
  }

  finish(): Picks {
    return { parts: Int32Array.from(this.#parts), rows: Int32Array.from(this.#rows) };
  }
}

/** Picks by part, each with its rows in result order, and where each pick stands when these are laid back to back. */
export interface PicksByPart {
  readonly parts: readonly { readonly part: number; readonly rows: Int32Array }[];
  readonly order: Int32Array;
}

export function groupPicks(picks: Picks): PicksByPart {
  // Nearly always all come from one part.
  const [first] = picks.parts;
  if (first !== undefined && picks.parts.every((part) => part === first))
    return { parts: [{ part: first, rows: picks.rows }], order: picks.rows.map((_, i) => i) };
  const rowsOf = new Map<number, number[]>();
  const inPart = new Int32Array(picks.rows.length);
  picks.rows.forEach((row, i) => {
    const part = picks.parts[i];
    const rows = rowsOf.get(part) ?? [];
    rowsOf.set(part, rows);
    inPart[i] = rows.push(row) - 1;
  });
  const starts = new Map<number, number>();
  let start = 0;
  for (const [part, rows] of rowsOf) {
    starts.set(part, start);
    start += rows.length;
  }
  const order = inPart.map((at, i) => at + (starts.get(picks.parts[i]) ?? 0));
  return { parts: [...rowsOf].map(([part, rows]) => ({ part, rows: Int32Array.from(rows) })), order };
}

/** Columns of the parts (rows already taken, in the order of `groupPicks`) as one column in result order. */
export function arrange(columns: readonly Column[], order: Int32Array): Column {
  const all = concatColumns(columns);
  return order.every((at, i) => at === i) ? all : takeColumn(all, order);
}
