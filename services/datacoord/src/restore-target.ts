import { CairnError } from '@cairn/base';
import { type CollectionRecord, CollectionState, type RestoreIntentRecord } from '@cairn/proto/cairn/meta';
import { CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import type { SnapshotBundle } from '@cairn/segment';
import type { Ids } from './change-preparer.ts';
import { DEFAULT_PARTITION } from './changes/partition.ts';
import type { ControlChannel } from './control-channel.ts';
import type { LeaderStore } from './leader-store.ts';
import { inPhase } from './restore-phase.ts';

export interface TargetWishes {
  readonly noIndex: boolean;
  /** Names of the partitions to make, `_default` always with them; empty: all. */
  readonly partitions: readonly string[];
  /** Number of shards. */
  readonly shards: number;
}

/** Makes the collection that a restore fills. Every step may be repeated under the intent's job id; the undo of the intent drops it all. */
export class RestoreTarget {
  readonly #store: LeaderStore;
  readonly #control: ControlChannel;
  readonly #ids: Ids;

  constructor(store: LeaderStore, control: ControlChannel, ids: Ids) {
    this.#store = store;
    this.#control = control;
    this.#ids = ids;
  }

  /** Collection, indexes, and a look at both. Throws the first error with its phase. */
  async make(intent: RestoreIntentRecord, bundle: SnapshotBundle, wishes: TargetWishes): Promise<void> {
    const partitions = bundle.definition.partitions.filter(
      ({ name }) => wishes.partitions.length === 0 || name === DEFAULT_PARTITION || wishes.partitions.includes(name),
    );
    const names = partitions.map((partition) => partition.name);
    await inPhase('restore collection', () => this.#create(intent, bundle, names, wishes.shards));
    if (!wishes.noIndex) await inPhase('restore indexes', () => this.#createIndexes(intent, bundle));
    await inPhase('validate the restored collection', () => this.#validate(intent, bundle, names, wishes));
  }

  /** The collection as it was at T, under its new name, RESTORING: fields keep their ids, partitions their names and order. */
  async #create(intent: RestoreIntentRecord, bundle: SnapshotBundle, names: readonly string[], shards: number): Promise<void> {
    const { collection: was } = bundle.definition;
    const partitions = bundle.definition.partitions.filter((partition) => names.includes(partition.name));
    if (!was) throw new CairnError('ObjectDamaged', `the metadata of snapshot ${intent.snapshotId} does not define its collection`);
    const first = await this.#ids.allocate(Math.max(1, partitions.length));
    const id = intent.targetCollectionId;
    const collection: CollectionRecord = {
      ...was,
      id,
      name: intent.targetCollectionName,
      schema: WireSchema.encode({ ...WireSchema.decode(was.schema), name: intent.targetCollectionName }).finish(),
      // Channels are given out when the change is appended.
      shards: Array.from({ length: shards }, (_, index) => ({ index, vchannel: '', channel: '' })),
      state: CollectionState.COLLECTION_RESTORING,
      restoreJobId: intent.jobId,
      droppedTs: 0,
    };
    const value = {
      database: intent.targetDatabaseName,
      collection,
      partitions: partitions.map((partition, at) => ({ ...partition, id: first + at, collectionId: id })),
      checkpoints: [],
    };
    await this.#control.submit(`restore-${intent.jobId}-collection`, { $case: 'createCollection', value });
  }

  /** Sent together: the control channel applies them in this order. */
  async #createIndexes(intent: RestoreIntentRecord, bundle: SnapshotBundle): Promise<void> {
    const made = bundle.definition.indexes.map((index) => {
      const value = {
        database: intent.targetDatabaseName,
        collection: intent.targetCollectionName,
        index: { ...index, id: 0, collectionId: intent.targetCollectionId },
        field: '',
        restoreJobId: intent.jobId,
      };
      return this.#control.submit(`restore-${intent.jobId}-index-${index.id}`, { $case: 'createIndex', value });
    });
    const outcomes = await Promise.allSettled(made);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  #validate(intent: RestoreIntentRecord, bundle: SnapshotBundle, names: readonly string[], { noIndex, shards }: TargetWishes): void {
    const { state } = this.#store;
    const made = state.collections.get(intent.targetCollectionId)?.shards.length ?? 0;
    if (made !== shards)
      throw new CairnError('Internal', `restore job ${intent.jobId}: its target has ${made} shards, the restore needs ${shards}`);
    const partitions = new Set(state.partitionsOf(intent.targetCollectionId).map((partition) => partition.name));
    const missing = names.filter((name) => !partitions.has(name));
    if (missing.length > 0) {
      const counts = `${partitions.size} of ${names.length} partitions`;
      throw new CairnError('Internal', `restore job ${intent.jobId}: its target has ${counts}, not ${missing.join(', ')}`);
    }
    const indexes = new Set(state.indexesOf(intent.targetCollectionId).map((index) => index.name));
    const unindexed = noIndex ? undefined : bundle.definition.indexes.find((index) => !indexes.has(index.name));
    if (unindexed) throw new CairnError('Internal', `restore job ${intent.jobId}: its target has no index ${unindexed.name}`);
  }
}
