/**
 * A seeded workload through the unmodified Node SDK: inserts, upserts, deletes, flushes, snapshots and restores on one collection, with a model
 * of every acknowledged operation.
 */
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { differences, type Expectation, Model, type Version } from './model.ts';
import { OWN_CONNECTION } from './own-connection.ts';

const DIM = 8;
const PAGE = 4000;

/** mulberry32: the same numbers for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function vectorOf(key: number, version: Version): number[] {
  return Array.from({ length: DIM }, (_, i) => Math.fround(Math.sin(key * 31 + version * 7 + i)));
}

function rowOf(key: number, version: Version): Record<string, unknown> {
  return { id: key, version, payload: `row ${key} version ${version}`, vector: vectorOf(key, version) };
}

function ok(status: { error_code?: unknown; reason?: string } | undefined): boolean {
  return status?.error_code === 'Success';
}

export interface TakenSnapshot {
  readonly name: string;
  readonly expected: Expectation;
}

export interface Problem {
  readonly where: string;
  readonly found: readonly string[];
}

export class Workload {
  readonly model = new Model();
  readonly snapshots: TakenSnapshot[] = [];
  /** Snapshots whose create had no answer: there may be such a name. */
  readonly collection: string;
  readonly #random: () => number;
  readonly #keys: number;
  readonly #openRestores: number;
  #client: MilvusClient;
  #version = 0;
  #snapshotNumber = 0;
  /** Restore jobs that were answered and not yet checked. */
  readonly restores: { target: string; snapshot: TakenSnapshot; job: string }[] = [];
  /** How restores that were checked had ended. */
  readonly ended = { completed: 0, failed: 0 };
  /** Targets of restores that may have begun. */
  readonly targets: string[] = [];

  /** `openRestores`: with so many restores not yet checked a step begins no other, and writes instead. */
  constructor(options: { address: string; collection: string; seed: number; keys?: number; openRestores?: number }) {
    this.#client = connect(options.address);
    this.collection = options.collection;
    this.#random = seeded(options.seed);
    this.#keys = options.keys ?? 400;
    this.#openRestores = options.openRestores ?? Number.POSITIVE_INFINITY;
  }

  get client(): MilvusClient {
    return this.#client;
  }

  async reconnect(address: string): Promise<void> {
    await this.close();
    this.#client = connect(address);
  }

  async close(): Promise<void> {
    await this.#client.closeConnection().catch(() => undefined);
  }

  /** The collection, its index, loaded. */
  async prepare(shards = 2): Promise<void> {
    await this.#client.connectPromise;
    const created = await this.#client.createCollection({
      collection_name: this.collection,
      shards_num: shards,
      fields: [
        { name: 'id', data_type: DataType.Int64, is_primary_key: true },
        { name: 'version', data_type: DataType.Int32 },
        { name: 'payload', data_type: DataType.VarChar, max_length: 100 },
        { name: 'vector', data_type: DataType.FloatVector, dim: DIM },
      ],
      index_params: [{ field_name: 'vector', index_type: 'HNSW', metric_type: 'L2', params: { M: 8, efConstruction: 64 } }],
    });
    if (!ok(created)) throw new Error(`create collection: ${created.reason}`);
  }

  /** One operation, drawn by the seed. Failures are noted in the model, never thrown. */
  async step(): Promise<void> {
    const draw = this.#random();
    if (draw < 0.7 || (draw >= 0.93 && this.restores.length >= this.#openRestores)) await this.#write();
    else if (draw < 0.82) await this.#client.flush({ collection_names: [this.collection] }).catch(() => undefined);
    else if (draw < 0.93) await this.snapshot();
    else await this.restore();
  }

  async #write(): Promise<void> {
    const writes = new Map<number, Version>();
    const remove = this.#random() < 0.3;
    const count = 1 + Math.floor(this.#random() * 20);
    for (let i = 0; i < count; i++) {
      const key = this.model.pick(this.#random, this.#keys);
      if (key !== undefined) writes.set(key, remove ? 0 : ++this.#version);
    }
    if (writes.size === 0) return;
    this.model.sent(writes);
    try {
      const reply = remove
        ? await this.#client.delete({ collection_name: this.collection, ids: [...writes.keys()], timeout: 20_000 })
        : await this.#client.upsert({
            collection_name: this.collection,
            data: [...writes].map(([key, version]) => rowOf(key, version)) as never,
            timeout: 20_000,
          });
      if (ok(reply.status)) this.model.acknowledged(writes);
      else this.model.unknown(writes);
    } catch {
      this.model.unknown(writes);
    }
  }

  async snapshot(): Promise<void> {
    const name = `s${++this.#snapshotNumber}`;
    const answered = this.model.watch();
    const status = await this.#client
      .createSnapshot({ collection_name: this.collection, snapshot_name: name, timeout: 30_000 } as never)
      .catch(() => undefined);
    const expected = answered();
    if (ok(status)) this.snapshots.push({ name, expected });
  }

  async restore(): Promise<void> {
    const snapshot = this.snapshots[Math.floor(this.#random() * this.snapshots.length)];
    if (!snapshot) return;
    const target = `${this.collection}_r${this.targets.length}`;
    this.targets.push(target);
    const reply = await this.#client
      .restoreSnapshot({
        snapshot_name: snapshot.name,
        source_collection_name: this.collection,
        target_collection_name: target,
        timeout: 30_000,
      } as never)
      .catch(() => undefined);
    if (reply && ok(reply.status)) this.restores.push({ target, snapshot, job: String(reply.job_id) });
  }

  /** Every row of a collection by key order, read through the query iterator's own paging. */
  async rows(collection: string): Promise<{ key: number; version: Version }[]> {
    const rows: { key: number; version: Version }[] = [];
    let after = -1;
    for (;;) {
      const reply = await this.#client.query({
        collection_name: collection,
        filter: `id > ${after}`,
        output_fields: ['id', 'version', 'payload', 'vector'],
        limit: PAGE,
        timeout: 30_000,
      } as never);
      if (!ok(reply.status)) throw new Error(`query ${collection}: ${reply.status.reason}`);
      for (const row of reply.data) {
        const [key, version] = [Number(row['id']), Number(row['version'])];
        const want = rowOf(key, version);
        if (row['payload'] !== want['payload'])
          throw new Error(`${collection}: key ${key} version ${version} has payload ${row['payload']}`);
        if ((row['vector'] as number[]).some((value, i) => Math.fround(value) !== (want['vector'] as number[])[i]))
          throw new Error(`${collection}: key ${key} version ${version} has another vector`);
        rows.push({ key, version });
        after = Math.max(after, key);
      }
      if (reply.data.length < PAGE) return rows;
    }
  }

  /** Compares the collection with the model. */
  async checkCollection(): Promise<Problem[]> {
    const found = differences(await this.rows(this.collection), this.model.now());
    return found.length > 0 ? [{ where: this.collection, found }] : [];
  }

  /**
   * Waits for restores that were answered, compares each target with its snapshot, and drops the target. Under `mayFail` a job may have failed, when
   * it left nothing. One that cannot be looked at now is looked at again by the next call.
   */
  async checkRestores({ mayFail = false } = {}): Promise<Problem[]> {
    const problems: Problem[] = [];
    for (let restore = this.restores[0]; restore; restore = this.restores[0]) {
      problems.push(...(await this.#checkRestore(restore, mayFail)));
      this.restores.shift();
    }
    return problems;
  }

  async #checkRestore({ target, snapshot, job }: Workload['restores'][number], mayFail: boolean): Promise<Problem[]> {
    const state = await this.waitForRestore(job);
    if (state !== 'RestoreSnapshotCompleted') {
      const clean = state.startsWith('RestoreSnapshotFailed') && !(await this.#names()).includes(target);
      this.ended.failed++;
      return mayFail && clean
        ? []
        : [{ where: target, found: [`restore job ${job} ended ${state}${clean ? '' : ', and its target is there'}`] }];
    }
    await this.#client.loadCollectionSync({ collection_name: target });
    const found = differences(await this.rows(target), snapshot.expected);
    await this.#client.dropCollection({ collection_name: target });
    this.ended.completed++;
    return found.length > 0 ? [{ where: `${target} restored from ${snapshot.name}`, found }] : [];
  }

  async #names(): Promise<string[]> {
    const shown = await this.#client.showCollections();
    if (!ok(shown.status)) throw new Error(`collections cannot be listed: ${shown.status.reason}`);
    return shown.data.map((one) => one.name);
  }

  async waitForRestore(job: string, timeoutMs = 60_000): Promise<string> {
    const until = performance.now() + timeoutMs;
    for (;;) {
      const reply = await this.#client.getRestoreSnapshotState({ job_id: job });
      const state = ok(reply.status) ? String(reply.info?.state) : `unknown: ${reply.status.reason}`;
      if (state === 'RestoreSnapshotCompleted') return state;
      if (state === 'RestoreSnapshotFailed') return `${state}: ${reply.info?.reason}`;
      if (performance.now() > until) return `still ${state}`;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Every snapshot that was acknowledged is listed, and the last `most` restore to what they must hold. */
  async checkSnapshots(most = Number.POSITIVE_INFINITY): Promise<Problem[]> {
    const listed = await this.#client.listSnapshots({ collection_name: this.collection });
    const problems: Problem[] = [];
    for (const { name } of this.snapshots)
      if (!listed.snapshots.includes(name)) problems.push({ where: name, found: ['acknowledged, but not listed'] });
    for (const snapshot of this.snapshots.slice(-most)) {
      const target = `${this.collection}_check_${snapshot.name}`;
      const reply = await this.#client.restoreSnapshot({
        snapshot_name: snapshot.name,
        source_collection_name: this.collection,
        target_collection_name: target,
      });
      if (!ok(reply.status)) problems.push({ where: snapshot.name, found: [`restore refused: ${reply.status.reason}`] });
      else this.restores.push({ target, snapshot, job: String(reply.job_id) });
      problems.push(...(await this.checkRestores()));
    }
    return problems;
  }

  /** Targets of restores whose call had no answer: a job of each may have begun. Waits until every job has ended, and drops what is there. */
  async settleTargets(): Promise<Problem[]> {
    const problems: Problem[] = [];
    const jobs = await this.#client.listRestoreSnapshotJobs({});
    for (const job of jobs.jobs) {
      const state = await this.waitForRestore(String(job.job_id));
      if (state.startsWith('still')) problems.push({ where: `job ${job.job_id}`, found: [state] });
    }
    const names = await this.#names();
    for (const target of this.targets) if (names.includes(target)) await this.#client.dropCollection({ collection_name: target });
    return problems;
  }
}

function connect(address: string): MilvusClient {
  const client = new MilvusClient({ address, timeout: 30_000, maxRetries: 1, logLevel: 'error', channelOptions: OWN_CONNECTION } as never);
  client.connectPromise.catch(() => undefined);
  return client;
}

export function describeProblems(problems: readonly Problem[]): string {
  return problems
    .map(({ where, found }) => `${where}: ${found.slice(0, 5).join('; ')}${found.length > 5 ? ` (+${found.length - 5} more)` : ''}`)
    .join('\n');
}
