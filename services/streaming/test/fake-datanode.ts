import { CairnError, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { IndexPool } from '@cairn/index';
import type { MetaStore } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import { NodeRecord } from '@cairn/proto/cairn/meta';
import {
  DataNodeDefinition,
  type LoadSegmentsRequest,
  type QueryResult,
  type SearchResult,
  type SegmentQueryRequest,
  type SegmentReadScope,
  type SegmentSearchRequest,
} from '@cairn/proto/cairn/services';
import { encodeQueryResult, encodeSearchResult, executeQuery, executeSearch } from '@cairn/query';
import type { InProcessNetwork } from '@cairn/rpc';
import type { CollectionSchema } from '@cairn/schema';
import { openSegment, readDeltaLog, type SealedSegment } from '@cairn/segment';

export interface FakeDataNodeParts {
  readonly meta: MetaStore;
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  readonly network: InProcessNetwork;
  schema(): CollectionSchema;
}

/** Holds what it is told to, as a datanode does: empty when it starts, gone when its key is. It does not follow later deletes. */
export class FakeDataNode {
  readonly id: string;
  readonly held = new Map<number, SealedSegment>();
  readonly loads: LoadSegmentsRequest[] = [];
  readonly releases: number[][] = [];
  readonly scopes: SegmentReadScope[] = [];
  /** Loading waits for it. */
  gate: Promise<void> | undefined;
  readonly #parts: FakeDataNodeParts;
  #serving: { close(): void } | undefined;

  constructor(parts: FakeDataNodeParts, id: string) {
    this.#parts = parts;
    this.id = id;
  }

  get address(): string {
    return `inproc:${this.id}`;
  }

  /** Set: queries wait for it, as for a node that is cut off. */
  hangs: Promise<void> | undefined;

  async start(): Promise<this> {
    this.#serving = this.#parts.network.serve(this.address, DataNodeDefinition, {
      loadSegments: (request) => this.#load(request),
      releaseSegments: async ({ segmentIds }) => {
        this.releases.push(segmentIds);
        for (const id of segmentIds.length > 0 ? segmentIds : [...this.held.keys()]) this.held.delete(id);
        return {};
      },
      search: (request) => this.#search(request),
      query: (request) => this.#query(request),
      runTask: () => {
        throw new CairnError('NotSupported', 'not in this test');
      },
    });
    const value = NodeRecord.encode(NodeRecord.fromPartial({ id: this.id, role: 'datanode', address: this.address })).finish();
    await this.#parts.meta.txn({ then: [{ kind: 'put', key: keys.node('datanode', this.id), value }] });
    return this;
  }

  /** Its process ends; its key goes a little later, as a lease does. */
  async kill(leaseMs = 0): Promise<void> {
    this.#serving?.close();
    this.held.clear();
    if (leaseMs > 0) await this.#parts.runtime.sleep(leaseMs);
    await this.#parts.meta.txn({ then: [{ kind: 'delete', key: keys.node('datanode', this.id) }] });
  }

  async #load(request: LoadSegmentsRequest): Promise<Record<never, never>> {
    const { objects, runtime, schema } = this.#parts;
    this.loads.push(request);
    await this.gate;
    for (const record of request.segments) {
      const segment = await openSegment({ objects, runtime, record, schema: schema() });
      for (const { object } of request.deltaLogs) if (object) segment.applyDeletes(await readDeltaLog(objects, object));
      this.held.set(record.id, segment);
    }
    return {};
  }

  #segments(scope: SegmentReadScope | undefined): SealedSegment[] {
    if (!scope) throw new CairnError('InvalidParameter', 'no scope');
    this.scopes.push(scope);
    return scope.segmentIds.map((id) => {
      const segment = this.held.get(id);
      if (!segment) throw new CairnError('SegmentNotFound', `segment ${id} is not on ${this.id}`);
      return segment;
    });
  }

  async #query({ scope, plan }: SegmentQueryRequest): Promise<QueryResult> {
    await this.hangs;
    const segments = this.#segments(scope);
    if (!plan || !scope) throw new CairnError('InvalidParameter', 'no plan');
    const { runtime, schema } = this.#parts;
    return encodeQueryResult(
      await executeQuery({ segments, schema: schema(), plan, readTs: scope.readTs, expiredTs: scope.expiredTs, runtime }),
      scope.readTs,
      runtime,
    );
  }

  async #search({ scope, plan }: SegmentSearchRequest): Promise<SearchResult> {
    const segments = this.#segments(scope);
    if (!plan || !scope) throw new CairnError('InvalidParameter', 'no plan');
    const { runtime, schema } = this.#parts;
    const pool = new IndexPool({ runtime: inline(runtime), threads: 1 });
    return encodeSearchResult(
      await executeSearch({ segments, schema: schema(), plan, readTs: scope.readTs, expiredTs: scope.expiredTs, pool, runtime }),
      scope.readTs,
    );
  }
}

/** The same clock, without worker threads. */
export function inline(runtime: Runtime): Runtime {
  return new Proxy(runtime, {
    get: (target, name) => {
      if (name === 'inline') return true;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
