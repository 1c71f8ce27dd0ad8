import type { CollectionRecord, IndexRecord, LoadRecord, PartitionRecord } from '@cairn/proto/cairn/meta';
import type { CollectionSchema } from '@cairn/schema';

/** What this service reads of the catalog; libs/catalog's view behind a narrow face, so that tests need no store. */
export interface StreamingCatalog {
  collection(id: number): { readonly record: CollectionRecord; readonly schema: CollectionSchema } | undefined;
  collections(): Iterable<CollectionRecord>;
  /** Dropped ones too. */
  partition(collectionId: number, partitionId: number): PartitionRecord | undefined;
  partitions(collectionId: number): readonly PartitionRecord[];
  indexes(collectionId: number): readonly IndexRecord[];
  load(collectionId: number): LoadRecord | undefined;
  /** Resolves when the view shows all that was answered before. */
  sync(): Promise<void>;
  /** Called after each change with the collection it concerns. */
  onChange(listener: (collectionId: number) => void): { close(): void };
}
