import type { Runtime } from '@cairn/base';
import { EmbeddedMetaStore } from './embedded-meta-store.ts';
import type { MetaStore } from './meta-store.ts';
import { MemoryTable } from './meta-table.ts';
import { TransactionEngine } from './transaction-engine.ts';

/** MetaStore in memory: for tests, and for the simulation, where several instances share one. */
export class MemoryMetaStore extends EmbeddedMetaStore {
  constructor(runtime: Runtime) {
    super(new TransactionEngine(new MemoryTable(), runtime), runtime);
  }

  /**
   * The same store as another process would see it: leases granted here live as long as the timers of `runtime` run. Closing it does not
   * close the store.
   */
  connect(runtime: Runtime): MetaStore {
    return new MemoryConnection(this.engine, runtime);
  }

  /** Takes a lease away as if its holder had been cut off: its keys go, its `lost` aborts. */
  async loseLease(id: string): Promise<void> {
    await this.engine.revoke(id);
  }
}

class MemoryConnection extends EmbeddedMetaStore {
  override async close(): Promise<void> {}
}
