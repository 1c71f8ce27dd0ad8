import { CairnError, type Runtime, Turns } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import { SnapshotDefinition, type SnapshotRecord } from '@cairn/proto/cairn/meta';
import type { ListSnapshotsRequest } from '@cairn/proto/cairn/services';
import type { SnapshotSizes, UpkeepDefinition, VerifySnapshotRequest } from '@cairn/proto/cairn/upkeep';
import type { Handlers } from '@cairn/rpc';
import { readSnapshot } from '@cairn/segment';
import { diffSnapshots, snapshotBytes } from './check/snapshot-compare.ts';
import type { LeaderTerm } from './term.ts';

/** One page of all. */
const EVERY: Omit<ListSnapshotsRequest, 'database' | 'collection'> = {
  partition: '',
  pageSize: 0,
  pageToken: '',
  all: false,
  namesOnly: false,
  bareNames: false,
  sizes: false,
};

/** Items of a report at most, whatever is asked for. */
const MAX_ITEMS = 100_000;

/** Garbage, consistency, contents: answered by the leader alone. */
export function upkeepHandlers(leader: () => LeaderTerm, objects: ObjectStore, runtime: Runtime): Handlers<UpkeepDefinition> {
  const bundle = (record: SnapshotRecord) => readSnapshot(objects, record.metadataKey, { withSegments: true });
  return {
    gcPlan: ({ limit }) => leader().garbage.plan(Math.min(limit, MAX_ITEMS)),
    gcRun: ({ limit }) => leader().garbage.run(Math.min(limit, MAX_ITEMS)),
    check: ({ deep }) => leader().checker.run(deep),
    verifySnapshot: async (request) => {
      const term = leader();
      return term.verifier.verify(wanted(term, request), request);
    },
    startDrill: (request) => leader().drills.start(request),
    getDrill: async ({ id }) => leader().drills.get(id),
    listCertificates: async (request) => {
      const term = leader();
      return { certificates: await term.drills.certificates(wanted(term, request)), publicKey: await term.drills.publicKey() };
    },
    diffSnapshots: async ({ database, collection, from, to, fromId, toId }) => {
      const { snapshots } = leader();
      const records = [
        { name: from, id: fromId },
        { name: to, id: toId },
      ].map((one) => snapshots.committed({ database, collection, ...one }));
      const [first, second] = records;
      if (first?.collectionId !== second?.collectionId)
        throw new CairnError('InvalidParameter', `snapshots ${first?.id} and ${second?.id} are of different collections`);
      const [before, after] = await Promise.all(records.map(bundle));
      if (!before || !after) throw new CairnError('Internal', 'a comparison of two snapshots needs two');
      return diffSnapshots(before, after);
    },
    findSnapshots: async ({ segmentId, buildId }) => {
      if (segmentId > 0 === buildId > 0)
        throw new CairnError('InvalidParameter', 'snapshots are found by a segment or by an index build, one of them');
      const found = await leader().snapshotReferences.find(segmentId > 0 ? { segmentId } : { buildId });
      return {
        snapshots: found.map(({ id: snapshotId, name, collectionId, createdMs, definition }) => {
          const collection = SnapshotDefinition.decode(definition).collection?.name ?? '';
          return { snapshotId, name, collectionId, collection, createdMs };
        }),
      };
    },
    snapshotSizes: async ({ database, collection }) => {
      const term = leader();
      const sizes = await snapshotBytes(await term.references.read(), new Turns(runtime));
      return {
        snapshots: term.snapshots.catalog.list({ ...EVERY, database, collection }).snapshots.flatMap((info): SnapshotSizes[] => {
          const size = sizes.get(info.id);
          if (!size) return [];
          const { exclusive: exclusiveBytes, shared: sharedBytes } = size;
          return [{ snapshotId: info.id, name: info.name, bytes: info.bytes, exclusiveBytes, sharedBytes }];
        }),
      };
    },
  };
}

/** By id, also when its collection is gone; else by name. */
function wanted(term: LeaderTerm, { database, collection, name, snapshotId }: VerifySnapshotRequest): SnapshotRecord {
  return term.snapshots.committed({ database, collection, name, id: snapshotId });
}
