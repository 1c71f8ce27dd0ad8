import { CairnError, silentLogger } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type RestoreJobRecord, RestoreJobState, type SegmentRecord } from '@cairn/proto/cairn/meta';
import { RestoreSnapshotRequest } from '@cairn/proto/cairn/services';
import { HealthServer, startTelemetry, type Telemetry } from '@cairn/telemetry';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { sealSegment } from './contents.ts';
import { World } from './world.ts';

let world: World;
let telemetry: Telemetry;
let server: HealthServer;
beforeEach(async () => {
  world = new World({ settings: { copyTaskItems: 2 } });
  await world.node('streaming', 's1');
  await world.node('datanode', 'd1');
  await world.coordinator('a');
  telemetry = await startTelemetry({ service: 'cairn-test', nodeId: 'n1', runtime: world.runtime, logger: silentLogger });
  const of = { host: '127.0.0.1', port: 0, checks: {}, checkTimeoutMs: 50, runtime: world.runtime, logger: silentLogger };
  server = new HealthServer({ ...of, metrics: telemetry });
  await server.start();
});
afterEach(async () => {
  await server.stop();
  await telemetry.stop();
  await world.stop();
});

/** Series and value of every line that begins with `name`. */
async function measured(name: string): Promise<ReadonlyMap<string, number>> {
  const lines = (await (await fetch(`http://127.0.0.1:${server.port}/metrics`)).text()).split('\n').filter((line) => line.startsWith(name));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
}

async function restored(target: string): Promise<RestoreJobRecord> {
  const snapshot = { database: '', collection: 'books', name: 's1', id: 0 };
  const { jobId } = await world.client('a').restoreSnapshot(RestoreSnapshotRequest.fromPartial({ snapshot, targetCollection: target }));
  let job: RestoreJobRecord | undefined;
  await world.until(async () => {
    job = await world.client('a').getRestoreJob({ jobId });
    return job.state >= RestoreJobState.RESTORE_COMPLETED;
  }, 'the job ends');
  return job as RestoreJobRecord;
}

test('jobs and tasks by state, times of tasks and publishing, what was copied and what was tried again are measured', async () => {
  const { id: source } = await world.createCollection('a', 'books');
  const partition = Number((await world.meta.range({ prefix: keys.partitions(source) })).entries[0]?.key.split('/').at(-1));
  const segments: SegmentRecord[] = [];
  for (let n = 0; n < 5; n++) segments.push(await sealSegment(world, { collection: source, partition, shard: n % 2, minTs: 5, maxTs: 50 }));
  const wish = { requestId: '', database: '', collection: 'books', name: 's1', description: '', compactionProtectionSeconds: 0 };
  await world.client('a').createSnapshot(wish);
  let calls = 0;
  world.task = async function* (request) {
    if (++calls === 1) throw new CairnError('Unavailable', 'lost');
    // While a task runs it is counted as such.
    const tasks = await measured('cairn_restore_tasks');
    expect([...tasks].find(([series]) => series.includes('"running"'))?.[1]).toBeGreaterThan(0);
    yield* world.copyForReal(request);
  };
  const job = await restored('copy');
  expect(job.state).toBe(RestoreJobState.RESTORE_COMPLETED);
  world.task = async function* () {
    if (calls < 0) yield { taskId: 0 } as never;
    throw new CairnError('ObjectDamaged', 'object x is damaged');
  };
  expect((await restored('another')).state).toBe(RestoreJobState.RESTORE_FAILED);

  const one = async (series: string): Promise<number | undefined> => {
    const [name] = series.split('{');
    return [...(await measured(name))].find(([found]) => series.split(/[{},]/).every((part) => found.includes(part)))?.[1];
  };
  await world.until(async () => (await one('cairn_restore_jobs{state="failed"}')) === 1, 'the end is measured');
  expect(await one('cairn_restore_jobs{state="completed"}')).toBe(1);
  expect(await one('cairn_restore_jobs{state="executing"}')).toBe(0);
  expect(await one('cairn_restore_tasks{state="running"}')).toBe(0);
  expect(await one('cairn_restore_tasks{state="waiting"}')).toBe(0);
  expect(await one('cairn_restore_seconds_count{mode="copy",outcome="completed"}')).toBe(1);
  expect(await one('cairn_restore_seconds_count{mode="copy",outcome="failed"}')).toBe(1);
  expect(await one('cairn_restore_publish_seconds_count')).toBe(1);
  expect(await one('cairn_restore_task_seconds_count')).toBe(3);
  expect(await one('cairn_restore_copied_bytes_total')).toBe(job.totalBytes);
  expect(await one('cairn_restore_copied_objects_total')).toBe(job.totalObjects);
  expect(await one('cairn_restore_task_retries_total')).toBeGreaterThanOrEqual(1);
});
