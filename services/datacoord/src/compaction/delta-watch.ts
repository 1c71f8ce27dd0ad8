import type { Logger, Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaEntry, MetaStore } from '@cairn/meta';
import { DeltaLogRecord } from '@cairn/proto/cairn/meta';
import { followPrefix } from '../prefix-follower.ts';

/** Delta logs by collection, as the store has them. */
export class DeltaWatch {
  readonly #logs = new Map<number, Map<string, DeltaLogRecord>>();
  readonly #changed: () => void;

  constructor(changed: () => void) {
    this.#changed = changed;
  }

  async start(meta: MetaStore, runtime: Runtime, logger: Logger, stop: AbortSignal): Promise<void> {
    const follower = {
      reset: () => this.#logs.clear(),
      put: (entry: MetaEntry) => {
        const record = DeltaLogRecord.decode(entry.value);
        const ofCollection = this.#logs.get(record.collectionId) ?? new Map<string, DeltaLogRecord>();
        this.#logs.set(record.collectionId, ofCollection);
        ofCollection.set(entry.key, record);
      },
      delete: (key: string) => {
        const collectionId = Number(key.slice(keys.allDeltas.length).split('/')[0]);
        const ofCollection = this.#logs.get(collectionId);
        ofCollection?.delete(key);
        if (ofCollection?.size === 0) this.#logs.delete(collectionId);
      },
      changed: this.#changed,
    };
    await followPrefix(meta, keys.allDeltas, follower, runtime, logger, stop);
  }

  /** Those that were not dropped; the ones of an unfinished restore among them. */
  of(collectionId: number): DeltaLogRecord[] {
    return [...(this.#logs.get(collectionId)?.values() ?? [])].filter((log) => log.droppedTs === 0);
  }
}
