import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type CollectionRecord, type LoadRecord, PartitionRecord } from '@cairn/proto/cairn/meta';
import type { CreatePartition, DropPartition } from '@cairn/proto/cairn/wal';
import type { CatalogState } from '../catalog-state.ts';
import { type ChangeHandler, checkName, effects, putRecord } from './change.ts';
import { MAX_PARTITIONS } from './collection.ts';

export const DEFAULT_PARTITION = '_default';

/** A partition by name; PartitionNotFound names it. */
export function partitionNamed(state: CatalogState, collection: CollectionRecord, name: string): PartitionRecord {
  const found = state.partitionsOf(collection.id).find((partition) => partition.name === name);
  if (!found) throw new CairnError('PartitionNotFound', `partition not found[partition=${name}]`);
  return found;
}

function refusePartitionKey(collection: CollectionRecord, what: string): void {
  if (collection.numPartitions > 0)
    throw new CairnError('InvalidParameter', `disable ${what} partition if partition key mode is used`, { legacy: 1 });
}

/** An existing name is success, as in Milvus. */
export const createPartition: ChangeHandler<CreatePartition> = (state, change, { ts }) => {
  checkName('partition name', change.name);
  const { collection } = state.resolveLive(change.database, change.collection);
  refusePartitionKey(collection, 'create');
  const partitions = state.partitionsOf(collection.id);
  const existing = partitions.find((partition) => partition.name === change.name);
  if (existing) return effects(existing.id);
  if (partitions.length >= MAX_PARTITIONS) {
    throw new CairnError(
      'InvalidParameter',
      `partition number (${partitions.length}) exceeds max configuration (${MAX_PARTITIONS}), collection: ${collection.name}`,
      { legacy: 1 },
    );
  }
  const record: PartitionRecord = { id: change.id, collectionId: collection.id, name: change.name, createdTs: ts, droppedTs: 0 };
  return effects(record.id, { puts: [putRecord(keys.partition(collection.id, record.id), PartitionRecord, record)] });
};

/** A missing one is success; `_default` and a loaded one are refused. */
export const dropPartition: ChangeHandler<DropPartition> = (state, change, { ts }) => {
  const { collection } = state.resolveLive(change.database, change.collection);
  if (change.name === DEFAULT_PARTITION) throw new CairnError('InvalidParameter', 'default partition cannot be deleted', { legacy: 1 });
  refusePartitionKey(collection, 'drop');
  const partition = state.partitionsOf(collection.id).find((candidate) => candidate.name === change.name);
  if (!partition) return effects(0);
  const load = state.loads.get(collection.id);
  if (load?.partitionIds.includes(partition.id) || (load && load.partitionIds.length === 0)) {
    throw new CairnError('InvalidParameter', 'partition cannot be dropped, partition is loaded, please release it first', { legacy: 1 });
  }
  return effects(partition.id, {
    puts: [putRecord(keys.partition(collection.id, partition.id), PartitionRecord, { ...partition, droppedTs: ts })],
  });
};

/** The load record without these partitions; undefined when nothing stays loaded. */
export function withoutPartitions(
  state: CatalogState,
  collection: CollectionRecord,
  load: LoadRecord,
  released: readonly number[],
): LoadRecord | undefined {
  const loaded = load.partitionIds.length > 0 ? load.partitionIds : state.partitionsOf(collection.id).map((partition) => partition.id);
  const rest = loaded.filter((id) => !released.includes(id));
  return rest.length === 0 ? undefined : { ...load, partitionIds: rest };
}
