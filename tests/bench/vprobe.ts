/**
 * Verification of a snapshot over a store on disk and over MinIO: shallow in objects a second, deep beside one sequential read of the same objects by
 * the same client, interleaved. 40 segments of 20,000 × 128 (420 MB) and 3,000 small objects.
 *   node tests/bench/verify.bench.ts [disk|minio]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Runtime, SystemRuntime } from '@cairn/base';
import { DiskObjectStore, type ObjectStore } from '@cairn/objects';
import { S3ObjectStore } from '@cairn/objects/s3';
import { type ObjectRef, SegmentRecord, SnapshotDefinition, SnapshotRecord } from '@cairn/proto/cairn/meta';
import { DataType, encodeSchema, keyColumn, makeBatch, makeSchema, numberColumn } from '@cairn/schema';
import { field } from '@cairn/schema/testing';
import { ExaminerPool, writeSegment, writeSnapshot } from '@cairn/segment';
import { checkObjects } from '/tmp/w/V/services/datacoord/src/check/object-check.ts';
import { SnapshotVerifier } from '/tmp/w/V/services/datacoord/src/check/snapshot-verifier.ts';
import { startMinio } from '/tmp/w/V/tests/support/servers.ts';
import { printTable, quantile, round } from '/tmp/w/V/tests/bench/support/table.ts';

const DIM = 128;
const ROWS = 20_000;
const SEGMENTS = 40;
const SMALL = 3_000;
const ROUNDS = 5;
const runtime: Runtime = new SystemRuntime();
const schema = makeSchema({
  name: 'bench',
  description: '',
  fields: [
    field(DataType.Int64, { id: 100, name: 'id', isPrimaryKey: true }),
    field(DataType.FloatVector, { id: 101, name: 'v', dim: DIM }),
  ],
  enableDynamicField: false,
  properties: {},
});
const definition = SnapshotDefinition.fromPartial({ collection: { id: 7, name: 'bench', schema: encodeSchema(schema) } });

function batchOf(segment: number) {
  const data = new Uint8Array(Float32Array.from({ length: ROWS * DIM }, (_, i) => Math.sin(i + segment)).buffer);
  return makeBatch(
    new Map([
      [0, numberColumn(Float64Array.from({ length: ROWS }, (_, row) => row))],
      [1, numberColumn(new Float64Array(ROWS).fill(2 ** 45))],
      [100, keyColumn(BigInt64Array.from({ length: ROWS }, (_, row) => BigInt(segment * ROWS + row)))],
      [101, { kind: 'vector' as const, type: DataType.FloatVector, length: ROWS, dim: DIM, bytesPerRow: DIM * 4, data, validity: null }],
    ]),
  );
}

async function snapshotOf(objects: ObjectStore, id: number, segments: SegmentRecord[]): Promise<SnapshotRecord> {
  const record = SnapshotRecord.fromPartial({ id, collectionId: 7, name: `s${id}`, ts: 2 ** 46 });
  const contents = { segments, deltaLogs: [], segmentIndexes: [], shards: [] };
  const { metadataKey } = await writeSnapshot(objects, { record, definition, contents, clusterId: 'bench' });
  return { ...record, metadataKey };
}

async function large(objects: ObjectStore): Promise<{ record: SnapshotRecord; refs: ObjectRef[] }> {
  const segments: SegmentRecord[] = [];
  for (let id = 1; id <= SEGMENTS; id++) {
    const prefix = `segments/7/8/${id}/g/`;
    const { objects: refs, ...written } = await writeSegment({ objects, runtime, prefix, schema, batch: batchOf(id) });
    segments.push(SegmentRecord.fromPartial({ ...written, id, collectionId: 7, partitionId: 8, prefix, objects: refs, sorted: true }));
  }
  return { record: await snapshotOf(objects, 1, segments), refs: segments.flatMap((segment) => segment.objects) };
}

async function small(objects: ObjectStore): Promise<SnapshotRecord> {
  const segments: SegmentRecord[] = [];
  const put = async (id: number) => {
    const key = `segments/7/9/${id}/g/scalars.arrow`;
    const { size, etag } = await objects.put(key, Buffer.alloc(1000, id));
    const ref = { key, size, etag, crc32c: 0, role: 'scalars', fieldId: 0 };
    segments.push(SegmentRecord.fromPartial({ id, collectionId: 7, partitionId: 9, rows: 1, objects: [ref] }));
  };
  for (let id = 1; id <= SMALL; id += 50) await Promise.all(Array.from({ length: 50 }, (_, i) => put(id + i)));
  return snapshotOf(objects, 2, segments);
}

const seconds = async (work: () => Promise<unknown>): Promise<number> => {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
};

async function measure(name: string, objects: ObjectStore): Promise<void> {
  const pool = new ExaminerPool(runtime, 2);
  const verifier = new SnapshotVerifier({ objects, runtime, pool });
  const { record, refs } = await large(objects);
  const few = await small(objects);
  const megabytes = refs.reduce((sum, ref) => sum + ref.size, 0) / 1e6;
  const must = async (one: SnapshotRecord, deep: boolean) => {
    const { findings, hashedSegments } = await verifier.verify(one, { deep });
    if (findings.length > 0 || (deep && hashedSegments !== SEGMENTS)) throw new Error(`not whole: ${JSON.stringify(findings[0])}`);
  };
  const referred = refs.map((object) => ({ object, rows: ROWS, by: 'bench' }));
  await must(record, true);
  const times: { read: number; deep: number; check: number; shallow: number }[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    times.push({
      read: await seconds(async () => {
        for (const ref of refs) await objects.get(ref.key);
      }),
      deep: await seconds(() => must(record, true)),
      check: await seconds(() => checkObjects(objects, referred, pool)),
      shallow: await seconds(() => must(few, false)),
    });
  }
  const median = (what: keyof (typeof times)[number]): number =>
    quantile(
      times.map((one) => one[what]),
      0.5,
    );
  const share = (what: 'deep' | 'check'): string => `${round((100 * median('read')) / median(what), 0)} % of the read`;
  printTable(`verification, ${name}, ${round(megabytes, 0)} MB, medians of ${ROUNDS}`, [
    { what: 'sequential read', rate: `${round(megabytes / median('read'), 0)} MB/s` },
    { what: 'verify --deep', rate: `${round(megabytes / median('deep'), 0)} MB/s`, share: share('deep') },
    { what: 'check --deep', rate: `${round(megabytes / median('check'), 0)} MB/s`, share: share('check') },
    { what: 'verify', rate: `${round(SMALL / median('shallow'), 0)} objects/s` },
  ]);
  await pool.stop();
}

const root = mkdtempSync(join(tmpdir(), 'cairn-verify-'));
const objects = new DiskObjectStore(root, runtime);
const pool = new ExaminerPool(runtime, 2);
const verifier = new SnapshotVerifier({ objects, runtime, pool });
const { record, refs } = await large(objects);
const mb = refs.reduce((sum, ref) => sum + ref.size, 0) / 1e6;
const cpu = async (name: string, work: () => Promise<unknown>) => {
  const b = process.cpuUsage(); const t = performance.now();
  await work();
  const u = process.cpuUsage(b); const w = performance.now() - t;
  console.log(name, `wall ${(w/mb).toFixed(2)} user ${(u.user/1000/mb).toFixed(2)} sys ${(u.system/1000/mb).toFixed(2)} ms/MB`);
};
const referred = refs.map((object) => ({ object, rows: ROWS, by: 'bench' }));
for (let r = 0; r < 4; r++) {
  await cpu('read', async () => { for (const ref of refs) await objects.get(ref.key); });
  await cpu('deep', () => verifier.verify(record, { deep: true }));
  await cpu('check', () => checkObjects(objects, referred, pool));
}
await pool.stop(); await objects.close(); rmSync(root, { recursive: true, force: true });
