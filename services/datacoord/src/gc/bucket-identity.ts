import { CairnError, type Runtime } from '@cairn/base';
import { keys, paths } from '@cairn/catalog';
import { ObjectExistsError, type ObjectStore } from '@cairn/objects';
import type { LeaderStore } from '../leader-store.ts';

const FORMAT = 'cairn.cluster';
/** How long one look at the bucket is trusted. */
const TRUST_MS = 30_000;

/**
 * Whose bucket it is. A small object in the bucket names the catalog it belongs to; ids of two catalogs are alike, so a bucket that was mixed up
 * would lose another cluster's data to our deletions. Every deletion asks `require` first.
 */
export class BucketIdentity {
  readonly #store: LeaderStore;
  readonly #objects: ObjectStore;
  readonly #runtime: Runtime;
  #seenAt = Number.NEGATIVE_INFINITY;

  constructor(store: LeaderStore, objects: ObjectStore, runtime: Runtime) {
    this.#store = store;
    this.#objects = objects;
    this.#runtime = runtime;
  }

  /**
   * Resolves when the bucket is this catalog's; claims it the first time. Else InvalidParameter says what was found: an operator must look, no
   * retry helps.
   */
  async require(): Promise<void> {
    if (this.#runtime.monotonic() - this.#seenAt < TRUST_MS) return;
    const cluster = await this.#cluster();
    const found = await this.#read();
    if (found === undefined) await this.#claim(cluster);
    else if (found !== cluster) throw this.#foreign(cluster, `belongs to cluster ${found}`);
    this.#seenAt = this.#runtime.monotonic();
  }

  async #cluster(): Promise<string> {
    const entry = await this.#store.retrying(() => this.#store.meta.get(keys.clusterIdentity));
    if (!entry) throw new CairnError('ServiceNotReady', 'the catalog has no identity yet');
    return Buffer.from(entry.value).toString();
  }

  /** Only a catalog that never claimed a bucket may: an identity that is gone means another bucket, or an emptied one. */
  async #claim(cluster: string): Promise<void> {
    const claimed = await this.#store.retrying(() => this.#store.meta.get(keys.clusterBucket));
    if (claimed) throw this.#foreign(cluster, `has no ${paths.identity}, which this cluster put into its bucket`);
    const body = Buffer.from(`${JSON.stringify({ format: FORMAT, cluster_id: cluster })}\n`);
    try {
      await this.#objects.put(paths.identity, body, { ifAbsent: true });
    } catch (error) {
      if (!(error instanceof ObjectExistsError)) throw error;
      const found = await this.#read();
      if (found !== cluster) throw this.#foreign(cluster, `belongs to cluster ${found ?? 'unknown'}`);
    }
    await this.#store.mustCommit({ puts: [{ key: keys.clusterBucket, value: Buffer.from(cluster) }] });
  }

  async #read(): Promise<string | undefined> {
    if (!(await this.#objects.head(paths.identity))) return undefined;
    const text = Buffer.from(await this.#objects.get(paths.identity)).toString();
    try {
      const parsed: unknown = JSON.parse(text);
      if (typeof parsed === 'object' && parsed !== null && 'cluster_id' in parsed && typeof parsed.cluster_id === 'string')
        return parsed.cluster_id;
    } catch {
      // Not JSON: falls through to the same answer as JSON of another form.
    }
    throw new CairnError(
      'InvalidParameter',
      `${paths.identity} in ${this.#objects.uri} names no cluster; nothing is deleted from this bucket`,
    );
  }

  #foreign(cluster: string, what: string): CairnError {
    return new CairnError(
      'InvalidParameter',
      `bucket ${this.#objects.uri} ${what}; this is cluster ${cluster}, nothing is deleted from it`,
    );
  }
}
