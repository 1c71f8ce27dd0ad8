import type { CatalogView } from '@cairn/catalog';
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

/** The process's view as this service reads it. */
export function streamingCatalog(view: CatalogView): StreamingCatalog {
  return {
    collection: (id) => {
      const record = view.collections.get(id);
      return record && { record, schema: view.schemaOf(id) };
    },
    collections: () => view.collections.values(),
    partition: (collectionId, partitionId) => view.partition(collectionId, partitionId),
    partitions: (collectionId) => view.partitionsOf(collectionId),
    indexes: (collectionId) => view.indexesOf(collectionId),
    load: (collectionId) => view.loadOf(collectionId),
    sync: () => view.sync(),
    onChange: (listener) =>
      view.onChange((changes) => {
        for (const id of new Set(changes.map((change) => change.collectionId))) if (id !== 0) listener(id);
      }),
  };
}
