/** Prints a benchmark's result: one row a measurement, aligned, with the machine named once. */
import { availableParallelism, cpus, totalmem } from 'node:os';

export type Row = Readonly<Record<string, string | number>>;

export function printTable(title: string, rows: readonly Row[]): void {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cells = rows.map((row) => columns.map((name) => String(row[name] ?? '')));
  const widths = columns.map((name, i) => Math.max(name.length, ...cells.map((line) => line[i]?.length ?? 0)));
  console.log(`\n${title}`);
  console.log(`(${availableParallelism()} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version})`);
  for (const line of [columns, ...cells]) console.log(`  ${line.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')}`.trimEnd());
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

export const round = (value: number, digits = 1): number => Number(value.toFixed(digits));
