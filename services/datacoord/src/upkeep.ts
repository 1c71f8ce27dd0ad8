import { CairnError } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import { type SnapshotRecord, SnapshotState } from '@cairn/proto/cairn/meta';
import type { SnapshotSizes, UpkeepDefinition, VerifySnapshotRequest } from '@cairn/proto/cairn/upkeep';
import type { Handlers } from '@cairn/rpc';
import { readSnapshot } from '@cairn/segment';
import { diffSnapshots, snapshotBytes } from './check/snapshot-compare.ts';
import type { LeaderTerm } from './term.ts';

/** Items of a report at most, whatever is asked for. */
const MAX_ITEMS = 100_000;

/** Garbage, consistency, contents: answered by the leader alone. */
export function upkeepHandlers(leader: () => LeaderTerm, objects: ObjectStore): Handlers<UpkeepDefinition> {
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
    diffSnapshots: async ({ database, collection, from, to }) => {
      const { snapshots } = leader();
      const records = [from, to].map((name) => snapshots.committed({ database, collection, name }));
      const [before, after] = await Promise.all(records.map(bundle));
      if (!before || !after) throw new CairnError('Internal', 'a comparison of two snapshots needs two');
      return diffSnapshots(before, after);
    },
    snapshotSizes: async ({ database, collection }) => {
      const term = leader();
      const sizes = snapshotBytes(await term.references.read());
      return {
        snapshots: term.snapshots.list({ database, collection }).flatMap((info): SnapshotSizes[] => {
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
  if (snapshotId === 0) return term.snapshots.committed({ database, collection, name });
  const record = term.store.state.snapshots.get(snapshotId);
  if (record?.state !== SnapshotState.SNAPSHOT_COMMITTED) throw new CairnError('InvalidParameter', `snapshot not found[id=${snapshotId}]`);
  return record;
}
