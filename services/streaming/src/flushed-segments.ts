import { keys } from '@cairn/catalog';
import { type MetaStore, scan } from '@cairn/meta';
import { GroupRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';

/** Sealed segments of a shard as the store has them now; those of an unpublished group are not there yet. */
export async function flushedSegments(meta: MetaStore, collectionId: number, shard: number): Promise<SegmentRecord[]> {
  const found: SegmentRecord[] = [];
  const published = new Map<string, boolean>();
  for await (const page of scan(meta, keys.segments(collectionId))) {
    for (const entry of page) {
      const record = SegmentRecord.decode(entry.value);
      if (record.shard !== shard || record.state !== SegmentState.SEGMENT_SEALED) continue;
      if (record.group !== '' && !published.has(record.group)) {
        const group = await meta.get(keys.group(record.group));
        published.set(record.group, group !== undefined && GroupRecord.decode(group.value).published);
      }
      if (record.group === '' || published.get(record.group)) found.push(record);
    }
  }
  return found;
}
