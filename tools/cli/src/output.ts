import { stringify } from 'yaml';

export type Format = 'table' | 'json' | 'yaml';
export type Cell = string | number | boolean | null;
export type Row = Readonly<Record<string, Cell | readonly Cell[]>>;

const MIN_GAP = 2;

function text(cell: Cell | readonly Cell[]): string {
  if (cell === null) return '-';
  return typeof cell === 'object' ? cell.join(', ') : String(cell);
}

/** Rows as an aligned table with upper-case headings; numbers to the right. Columns are those of the first row. */
export function table(rows: readonly Row[]): string {
  const [first] = rows;
  if (!first) return '';
  const columns = Object.keys(first);
  const lines = rows.map((row) => columns.map((name) => text(row[name] ?? null)));
  const widths = columns.map((name, i) => Math.max(name.length, ...lines.map((line) => line[i]?.length ?? 0)));
  const numeric = columns.map((name) => rows.every((row) => typeof row[name] === 'number'));
  const pad = (cell: string, i: number): string => (numeric[i] ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0));
  const heading = columns.map((name, i) => pad(name.toUpperCase(), i));
  return [heading, ...lines.map((line) => line.map(pad))].map((line) => line.join(' '.repeat(MIN_GAP)).trimEnd()).join('\n');
}

/** Prints rows in the chosen format; an empty list prints nothing as a table, `[]` otherwise. */
export function print(format: Format, rows: readonly Row[]): void {
  if (format === 'json') console.log(JSON.stringify(rows, null, 2));
  else if (format === 'yaml') process.stdout.write(stringify(rows));
  else if (rows.length > 0) console.log(table(rows));
}

/** Prints one object: as a table one `key  value` line each. */
export function printOne(format: Format, row: Row): void {
  if (format === 'json') console.log(JSON.stringify(row, null, 2));
  else if (format === 'yaml') process.stdout.write(stringify(row));
  else {
    const width = Math.max(...Object.keys(row).map((key) => key.length)) + MIN_GAP;
    for (const [key, value] of Object.entries(row)) console.log(`${key.padEnd(width)}${text(value)}`);
  }
}

export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = count;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** A span of time in its two largest units. */
export function duration(ms: number): string {
  const seconds = Math.floor(ms / 1_000);
  const parts: readonly (readonly [number, string])[] = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3_600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [seconds % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return '0 s';
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ');
}
