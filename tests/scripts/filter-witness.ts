/**
 * The filters of tests/sdk/filters.test.ts (same seed), tried on milvus-lite as a second witness: how many it answers as our reading of the rules does, how
 * many it refuses, and where it differs. Run by hand; the differences are explained in docs/compatibility.md.
 *   node tests/scripts/filter-witness.ts [examples of each kind to print]
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { printTable } from '../bench/support/table.ts';
import { wireRow } from '../support/filter-collection.ts';
import { expectedIds, filterRows, filters } from '../support/filter-grammar.ts';
import { MILVUS_LITE, PYMILVUS, preparePython } from '../support/python.ts';
import { seeded } from '../support/workload.ts';

const examples = Number(process.argv[2] ?? 2);
const prepared = await preparePython([MILVUS_LITE, PYMILVUS]);
if ('missing' in prepared) throw new Error(prepared.missing);
const random = seeded(6);
const rows = filterRows(300, random);
const made = filters(12, 400, random);
const directory = mkdtempSync(join(tmpdir(), 'cairn-witness-'));
try {
  const file = join(directory, 'filters.json');
  writeFileSync(file, JSON.stringify({ rows: rows.map(wireRow), filters: made.map((filter) => filter.text) }));
  const script = join(import.meta.dirname, '../sdk/filter_witness.py');
  const { stdout } = await promisify(execFile)(prepared.python, [script, file, join(directory, 'lite.db')], { maxBuffer: 2 ** 26 });
  const answers = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { ids?: number[]; refused?: string });
  const table = new Map<string, { filters: number; same: number; refused: number; differs: string[]; why: string[] }>();
  made.forEach((filter, i) => {
    const row = table.get(filter.kind) ?? { filters: 0, same: 0, refused: 0, differs: [], why: [] };
    table.set(filter.kind, row);
    row.filters++;
    const { ids, refused } = answers[i] ?? {};
    const want = expectedIds(filter, rows);
    if (!ids) {
      row.refused++;
      row.why.push(`${filter.text}: ${refused}`);
    } else if (ids.join() === want.join()) row.same++;
    else {
      const extra = ids.find((id) => !want.includes(id));
      const lacking = want.find((id) => !ids.includes(id));
      row.differs.push(
        `${filter.text}: it ${extra !== undefined ? `takes ${JSON.stringify(rows[extra])}` : `lacks ${JSON.stringify(rows[lacking ?? 0])}`}`,
      );
    }
  });
  printTable(
    'milvus-lite as a witness of filters',
    [...table].map(([kind, row]) => ({ kind, filters: row.filters, same: row.same, refused: row.refused, differs: row.differs.length })),
  );
  for (const [kind, row] of table)
    for (const text of [...row.differs.slice(0, examples), ...row.why.slice(0, examples > 0 ? 1 : 0)]) console.log(`${kind}: ${text}`);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
