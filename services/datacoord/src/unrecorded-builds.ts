import { hasCode, isRetriable, type Logger } from '@cairn/base';
import {
  type CollectionRecord,
  IndexBuildState,
  type IndexRecord,
  type SegmentIndexRecord,
  type SegmentRecord,
} from '@cairn/proto/cairn/meta';
import type { Ids } from './change-preparer.ts';
import { indexedFieldIds, typeOf } from './index-builder.ts';
import type { DataCoordSettings } from './settings.ts';
import type { TaskRunner } from './task-runner.ts';

export interface UnrecordedBuildsOptions {
  readonly ids: Ids;
  readonly tasks: TaskRunner;
  readonly settings: DataCoordSettings;
  readonly logger: Logger;
}

export interface UnrecordedSegment {
  readonly collection: CollectionRecord;
  /** Indexes of the collection; those that a segment of this size has are built. */
  readonly indexes: readonly IndexRecord[];
  readonly segment: SegmentRecord;
  /** Of the task that wrote the segment: stands in the keys of the objects, so that late workers write elsewhere. */
  readonly epoch: number;
  /** Under which the builds become visible together with the segment; empty: with the transaction that holds them. */
  readonly group: string;
  /** Called with the ids of the builds before the first begins: their objects have no record yet. */
  readonly announce?: (buildIds: number[]) => Promise<void>;
}

/**
 * Builds the indexes of a segment that was written and has no record yet, so that it can be searched by them from the moment it is seen. Returns their
 * records, for the transaction that makes it visible. One that cannot be built is left to the index builder, which says why; what may pass is thrown.
 */
export async function buildUnrecorded(
  { ids, tasks, settings, logger }: UnrecordedBuildsOptions,
  { collection, indexes, segment, epoch, group, announce }: UnrecordedSegment,
  signal: AbortSignal,
): Promise<SegmentIndexRecord[]> {
  const fields = indexedFieldIds(collection);
  const wanted = indexes.filter((index) => fields.has(index.fieldId) && typeOf(index) !== 'FLAT' && segment.rows >= settings.indexMinRows);
  if (wanted.length === 0) return [];
  const first = await ids.allocate(wanted.length);
  await announce?.(wanted.map((_, at) => first + at));
  const build = async (index: IndexRecord, buildId: number): Promise<SegmentIndexRecord> => {
    const key = `${segment.prefix}index.${index.fieldId}.${buildId}e${epoch}`;
    const slot = await tasks.acquire('build', signal);
    try {
      const value = { schema: collection.schema, segment, index, buildId, key };
      const update = await tasks.run(slot, { taskId: buildId, epoch, task: { $case: 'buildIndex', value } }, signal);
      return {
        buildId,
        indexId: index.id,
        collectionId: collection.id,
        segmentId: segment.id,
        fieldId: index.fieldId,
        state: IndexBuildState.INDEX_BUILD_FINISHED,
        object: update.objects[0],
        rows: update.rows || segment.rows,
        reason: '',
        group,
        epoch,
        indexType: typeOf(index),
      };
    } finally {
      slot.release();
    }
  };
  const builds: SegmentIndexRecord[] = [];
  for (const [at, index] of wanted.entries()) {
    try {
      builds.push(await build(index, first + at));
    } catch (error) {
      if (signal.aborted || isRetriable(error) || hasCode(error, 'Cancelled', 'ServiceNotReady')) throw error;
      logger.warn({ error, segment: segment.id, index: index.name }, 'an index of a segment that was just written was not built');
    }
  }
  return builds;
}
