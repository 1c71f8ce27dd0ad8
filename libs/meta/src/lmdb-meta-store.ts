import { mkdirSync } from 'node:fs';
import { asCairnError, CairnError, type Runtime } from '@cairn/base';
import { EmbeddedMetaStore } from './embedded-meta-store.ts';
import { LmdbTable } from './lmdb-table.ts';
import { TransactionEngine } from './transaction-engine.ts';

/**
 * MetaStore in one LMDB environment: for one embedded process, which must be alone on the directory. Transactions are durable when they
 * resolve. Leases do not survive the process: their keys are deleted at open.
 */
export class LmdbMetaStore extends EmbeddedMetaStore {
  private constructor(engine: TransactionEngine, runtime: Runtime) {
    super(engine, runtime);
  }

  /** Opens or creates the store in directory `dir`. */
  static async open(dir: string, runtime: Runtime): Promise<LmdbMetaStore> {
    try {
      mkdirSync(dir, { recursive: true });
      const table = new LmdbTable(dir);
      const leased = table.leasedKeys();
      if (leased.length > 0) {
        await table.commit(
          leased.map((key) => ({ key, entry: undefined, leased: false })),
          table.revision() + 1,
        );
      }
      return new LmdbMetaStore(new TransactionEngine(table, runtime), runtime);
    } catch (error) {
      throw new CairnError('StoreUnavailable', `meta store in ${dir} cannot be opened: ${asCairnError(error).message}`, { cause: error });
    }
  }

  /** Takes a lease away as if its holder had been cut off: its keys go, its `lost` aborts. */
  async loseLease(id: string): Promise<void> {
    await this.engine.revoke(id);
  }
}
