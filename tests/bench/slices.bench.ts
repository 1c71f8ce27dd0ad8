/**
 * Eight flushes side by side, as a create of a snapshot asks for: CPU time of the main thread between two turns of its event loop, which is what everyone
 * else waits. What a busy machine does to the clock on the wall does not count. 20,000 × 128 each, keys in no order, onto the disk.
 *   node tests/bench/slices.bench.ts
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemRuntime } from '@cairn/base';
import { DiskObjectStore } from '@cairn/objects';
import { type ColumnBatch, DataType, keyColumn, makeBatch, makeSchema, numberColumn } from '@cairn/schema';
import { field } from '@cairn/schema/testing';
import { writeSegment } from '@cairn/segment';
import { cpuMs } from './support/stretches.ts';
import { printTable, type Row, round } from './support/table.ts';

const DIM = 128;
const ROWS = 20_000;
const FLUSHES = 8;
const ROUNDS = 3;
const LONG_MS = 10;

const schema = makeSchema({
  name: 'slices',
  description: '',
  fields: [
    field(DataType.Int64, { id: 100, name: 'id', isPrimaryKey: true }),
    field(DataType.FloatVector, { id: 101, name: 'v', dim: DIM }),
  ],
  enableDynamicField: false,
  properties: {},
});

function batchOf(seed: number): ColumnBatch {
  const data = new Uint8Array(Float32Array.from({ length: ROWS * DIM }, (_, i) => Math.sin(i + seed)).buffer);
  return makeBatch(
    new Map([
      [0, numberColumn(Float64Array.from({ length: ROWS }, (_, row) => row))],
      [1, numberColumn(new Float64Array(ROWS).fill(2 ** 45))],
      [100, keyColumn(BigInt64Array.from({ length: ROWS }, (_, row) => BigInt((row * 7919) % ROWS)))],
      [101, { kind: 'vector' as const, type: DataType.FloatVector, length: ROWS, dim: DIM, bytesPerRow: DIM * 4, data, validity: null }],
    ]),
  );
}

/** CPU time of each turn of the event loop until `stop`. */
function turns(): { readonly stop: () => readonly number[] } {
  const took: number[] = [];
  let [last, counting] = [cpuMs(), true];
  const turn = (): void => {
    const now = cpuMs();
    took.push(now - last);
    last = now;
    if (counting) setImmediate(turn);
  };
  setImmediate(turn);
  return {
    stop: () => {
      counting = false;
      return took;
    },
  };
}

const runtime = new SystemRuntime();
const dir = mkdtempSync(join(tmpdir(), 'cairn-slices-'));
try {
  const objects = new DiskObjectStore(dir, runtime);
  const batches = Array.from({ length: FLUSHES }, (_, i) => batchOf(i));
  const rows: Row[] = [];
  for (let at = 1; at <= ROUNDS; at++) {
    const watched = turns();
    const [start, cpu] = [performance.now(), cpuMs()];
    await Promise.all(batches.map((batch, i) => writeSegment({ objects, runtime, prefix: `${at}/${i}/`, schema, batch })));
    const [tookMs, usedMs] = [performance.now() - start, cpuMs() - cpu];
    const all = watched.stop();
    const long = all.filter((ms) => ms > LONG_MS).length;
    rows.push({
      round: at,
      ms: round(tookMs),
      'CPU ms': round(usedMs),
      'longest turn, CPU ms': round(all.reduce((most, ms) => Math.max(most, ms), 0)),
      'above 10 ms': long,
    });
  }
  printTable(`${FLUSHES} flushes of ${ROWS} × ${DIM} side by side`, rows);
} finally {
  rmSync(dir, { recursive: true, force: true });
}
