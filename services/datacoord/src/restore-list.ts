import type { RestoreJobRecord } from '@cairn/proto/cairn/meta';
import type { ListRestoreJobsRequest } from '@cairn/proto/cairn/services';
import type { CatalogState } from './catalog-state.ts';
import { isOver } from './copy-jobs.ts';

interface Side {
  readonly database: string;
  readonly collection: string;
}

/** A side of a job as it was named at the start, and as its collection is named now; by one of these names too, when it is an alias of it. */
function namesOf(state: CatalogState, id: number, then: Side, ...asked: readonly string[]): Side[] {
  const now = state.collections.get(id);
  const database = now && state.databases.get(now.databaseId);
  if (!now || !database) return [then];
  const aliases = asked.filter((name) => name !== '' && state.alias(database, name)?.collectionId === id);
  return [then, ...[now.name, ...aliases].map((collection) => ({ database: database.name, collection }))];
}

const has = (sides: readonly Side[], { database, collection }: Side): boolean =>
  sides.some((side) => (database === '' || side.database === database) && (collection === '' || side.collection === collection));

/** Whether the filters of the request, all of them, let the job pass. Empty ones let all pass; collections that are gone are found by their old names. */
export function isListed(state: CatalogState, job: RestoreJobRecord, request: ListRestoreJobsRequest): boolean {
  const [from, to] = [
    { database: job.sourceDatabaseName, collection: job.sourceCollectionName },
    { database: job.targetDatabaseName, collection: job.targetCollectionName },
  ];
  const source = namesOf(state, job.sourceCollectionId, from, request.collection, request.sourceCollection);
  const target = namesOf(state, job.targetCollectionId, to, request.collection, request.targetCollection);
  return (
    (has(source, request) || has(target, request)) &&
    has(source, { database: request.sourceDatabase, collection: request.sourceCollection }) &&
    has(target, { database: request.targetDatabase, collection: request.targetCollection })
  );
}

/** The job with its time, its rate and what is left of it at that rate. `nowMs`: unix ms. */
export function withPace(job: RestoreJobRecord, nowMs: number): RestoreJobRecord {
  const timeCostMs = Math.max(0, (job.endMs > 0 ? job.endMs : nowMs) - job.startMs);
  const bytesPerSecond = timeCostMs === 0 ? 0 : Math.round((job.copiedBytes * 1_000) / timeCostMs);
  const left = job.totalBytes - job.copiedBytes;
  const etaMs = isOver(job) || bytesPerSecond === 0 ? 0 : Math.ceil((left * 1_000) / bytesPerSecond);
  return { ...job, timeCostMs, bytesPerSecond, etaMs };
}
