/** One compaction of six segments of 50,000 × 128 on disk, as a datanode does it: open, apply deletes, merge, write. Keys of all run through each other. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { SystemRuntime } from '@cairn/base';
import { DiskObjectStore } from '@cairn/objects';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import { type Column, DataType, keyColumn, makeSchema, numberColumn } from '@cairn/schema';
import { field } from '@cairn/schema/testing';
import { deletesOf, mergeSegments, openSegment, sliceDeletes, survivingRows, writeSegment } from '@cairn/segment';
import { printTable, type Row, round } from './support/table.ts';

const DIM = 128;
const ROWS = 50_000;
const SEGMENTS = 6;
const DELETES = 60_000;
const SLICE = 512;

const runtime = new SystemRuntime();
const directory = await mkdtemp(join(tmpdir(), 'compaction-bench-'));
const objects = new DiskObjectStore(directory, runtime);
const schema = makeSchema({
  name: 'bench',
  description: '',
  fields: [
    field(DataType.Int64, { id: 100, name: 'id', isPrimaryKey: true }),
    field(DataType.VarChar, { id: 101, name: 'title' }),
    { ...field(DataType.FloatVector, { id: 102, name: 'vector' }), dim: DIM },
  ],
  enableDynamicField: false,
  properties: {},
});

async function sealed(number: number): Promise<SegmentRecord> {
  const text = Buffer.from(Array.from({ length: ROWS }, (_, row) => `row ${row} of ${number}`.padEnd(32)).join(''));
  const vectors = new Uint8Array(Float32Array.from({ length: ROWS * DIM }, (_, at) => Math.sin(at)).buffer);
  const vector: Column = {
    kind: 'vector',
    type: DataType.FloatVector,
    length: ROWS,
    dim: DIM,
    bytesPerRow: DIM * 4,
    data: vectors,
    validity: null,
  };
  const offsets = Int32Array.from({ length: ROWS + 1 }, (_, row) => row * 32);
  const columns = new Map<number, Column>([
    [0, numberColumn(new Float64Array(ROWS).fill(number))],
    [1, numberColumn(new Float64Array(ROWS).fill(10 + number))],
    [100, keyColumn(Array.from({ length: ROWS }, (_, row) => BigInt(row * SEGMENTS + number)))],
    [101, { kind: 'bytes', type: DataType.VarChar, length: ROWS, offsets, data: text, validity: null }],
    [102, vector],
  ]);
  const written = await writeSegment({ objects, runtime, prefix: `in/${number}/`, schema, batch: { length: ROWS, columns } });
  return SegmentRecord.fromPartial({ id: number + 1, prefix: `in/${number}/`, sorted: true, ...written });
}

const records: SegmentRecord[] = [];
for (let number = 0; number < SEGMENTS; number++) records.push(await sealed(number));
const bytes = records.reduce((sum, record) => sum + record.bytes, 0);
const rssBefore = process.memoryUsage().rss;
let rssPeak = rssBefore;
const watching = setInterval(() => {
  rssPeak = Math.max(rssPeak, process.memoryUsage().rss);
}, 10);
const delay = monitorEventLoopDelay({ resolution: 1 });

const lines: Row[] = [];
async function phase<T>(name: string, work: () => Promise<T>): Promise<T> {
  delay.reset();
  delay.enable();
  const started = performance.now();
  const cpu = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(cpu);
  const [ms, cpuMs] = [round(performance.now() - started), round((user + system) / 1000)];
  lines.push({ phase: name, ms, cpuMs, 'loop delay p99, ms': round(delay.percentile(99) / 1e6), 'max, ms': round(delay.max / 1e6) });
  return result;
}

const started = performance.now();
const segments = await phase('open', () => Promise.all(records.map((record) => openSegment({ objects, runtime, record, schema }))));
await phase('apply deletes', async () => {
  const deletes = deletesOf(keyColumn(Array.from({ length: DELETES }, (_, at) => BigInt(at * 5))), 50);
  for (const segment of segments) {
    for (let at = 0; at < DELETES; at += SLICE) {
      segment.applyDeletes(sliceDeletes(deletes, at, Math.min(at + SLICE, DELETES)));
      await runtime.sleep(0);
    }
  }
});
const surviving = await phase('count', () => survivingRows(segments, Number.POSITIVE_INFINITY, runtime));
const batch = await phase('merge', () => mergeSegments(surviving, schema, runtime));
await phase('write', () => writeSegment({ objects, runtime, prefix: 'out/', schema, batch }));
clearInterval(watching);
const seconds = (performance.now() - started) / 1000;
printTable(`compaction of ${SEGMENTS} segments, ${round(bytes / 1e6)} MB`, lines);
console.log(
  `${SEGMENTS * ROWS} rows, ${round(bytes / 1e6)} MB in ${round(seconds)} s: ${round(bytes / 1e6 / seconds)} MB/s; ${surviving.rows} rows stay; memory +${round((rssPeak - rssBefore) / 1e6)} MB`,
);
await rm(directory, { recursive: true });
