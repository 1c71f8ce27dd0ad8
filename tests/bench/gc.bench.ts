/**
 * What a plan of garbage collection over many objects costs the coordinator: time, memory, longest stretch of the main thread. The catalog is real
 * (LMDB), the bucket answers listings from the same numbers.
 *   node tests/bench/gc.bench.ts [objects, default 1000000]
 */
import { keys, paths } from '@cairn/catalog';
import type { ObjectInfo, ObjectStore } from '@cairn/objects';
import { IndexBuildState, PrefixRecord, SegmentIndexRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import { startCoordinator } from './support/coordinator.ts';
import { cpuMs, Stretches } from './support/stretches.ts';
import { printTable, round } from './support/table.ts';

const total = Number(process.argv[2] ?? 1_000_000);
/** Of one segment: scalars, one vector field, one index. */
const OBJECTS_EACH = 3;
const FIRST = 10_000_000;
const SETTLE_MS = 500;
/** One segment of so many was replaced and is garbage. */
const GARBAGE_EVERY = 100;
const count = Math.floor(total / OBJECTS_EACH);
let [collection, partition] = [0, 0];

const prefixOf = (i: number): string => paths.segment(collection, partition, FIRST + i, 'a1b2c3');
const buildOf = (i: number): number => FIRST * 2 + i;
/** In key order. */
const namesOf = (i: number): string[] => [`index.101.${buildOf(i)}`, 'scalars.arrow', 'vector.101.arrow'];

/** The listing of the synthetic segments, page by page, made as it is asked for. */
function listing(after: string | undefined): { objects: ObjectInfo[]; next?: string } {
  const [at = -1, name = 0] = after === undefined ? [] : after.split(':').map(Number);
  const objects: ObjectInfo[] = [];
  for (let i = Math.max(at, 0), j = at < 0 ? 0 : name; i < count; i++, j = 0) {
    const prefix = prefixOf(i);
    for (const names = namesOf(i); j < OBJECTS_EACH; j++) {
      if (objects.length === 1_000) return { objects, next: `${i}:${j}` };
      objects.push({ key: `${prefix}${names[j]}`, size: 1_000, etag: '', modifiedMs: 0 });
    }
  }
  return { objects };
}

const coordinator = await startCoordinator(
  {},
  (disk) =>
    new Proxy(disk, {
      get(target, name) {
        if (name === 'list')
          return async (prefix: string, options: { after?: string } = {}) =>
            prefix === 'segments/' && collection > 0
              ? listing(options.after)
              : ({ objects: [] } satisfies Awaited<ReturnType<ObjectStore['list']>>);
        const value = Reflect.get(target, name) as unknown;
        return typeof value === 'function' ? value.bind(target) : value;
      },
    }),
);

function* records(): Generator<{ key: string; value: Uint8Array }> {
  for (let i = 0; i < count; i++) {
    const prefix = prefixOf(i);
    const [index = '', ...data] = namesOf(i).map((name) => ({
      key: `${prefix}${name}`,
      size: 1_000,
      crc32c: i,
      role: 'vector',
      fieldId: 101,
      etag: '',
    }));
    const state = i % GARBAGE_EVERY === 0 ? SegmentState.SEGMENT_DROPPED : SegmentState.SEGMENT_SEALED;
    const own = {
      id: FIRST + i,
      collectionId: collection,
      partitionId: partition,
      prefix,
      rows: 10,
      minTs: 5,
      maxTs: 6,
      objects: data,
      state,
    };
    yield {
      key: keys.segment(collection, FIRST + i),
      value: SegmentRecord.encode(SegmentRecord.fromPartial({ ...own, droppedTs: 7 })).finish(),
    };
    const build = {
      buildId: buildOf(i),
      indexId: 1,
      collectionId: collection,
      segmentId: FIRST + i,
      state: IndexBuildState.INDEX_BUILD_FINISHED,
    };
    const value = SegmentIndexRecord.encode(
      SegmentIndexRecord.fromPartial({ ...build, object: index === '' ? undefined : index }),
    ).finish();
    yield { key: keys.segmentIndex(collection, FIRST + i, 1), value };
    yield {
      key: keys.prefix(prefix),
      value: PrefixRecord.encode(PrefixRecord.fromPartial({ prefix, createdMs: 1, purpose: 'flush' })).finish(),
    };
  }
}

/** The coordinator follows what was put: until it has it all, that would be counted to the plan. */
async function settled(): Promise<void> {
  for (let calm = 0; calm < 3; ) {
    const cpu = cpuMs();
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    calm = cpuMs() - cpu < SETTLE_MS / 5 ? calm + 1 : 0;
  }
}

function memory(): number {
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 2 ** 20;
}

try {
  const made = await coordinator.createCollection('synthetic', 1);
  await coordinator.putAll(
    (function* () {
      [collection, partition] = [made.collection, made.partition];
      yield* records();
    })(),
  );
  await settled();
  globalThis.gc?.();
  const before = memory();
  let most = before;
  const watch = setInterval(() => {
    most = Math.max(most, memory());
  }, 20);
  const stretches = new Stretches();
  stretches.start();
  const [start, cpu] = [performance.now(), cpuMs()];
  const report = await coordinator.upkeep.gcPlan({ limit: 10 }, { timeoutMs: 600_000 });
  const took = performance.now() - start;
  stretches.stop();
  clearInterval(watch);
  printTable(`plan of garbage collection, ${report.objects} objects, ${report.candidateCount} prefixes of garbage`, [
    {
      seconds: round(took / 1_000),
      'CPU seconds': round((cpuMs() - cpu) / 1_000),
      'memory above rest, at most MB': round(most - before),
      'longest stretch, CPU ms': round(stretches.longestMs),
    },
  ]);
} finally {
  await coordinator.stop();
}
