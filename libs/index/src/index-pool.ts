import { CairnError, type Runtime, Semaphore, type Service } from '@cairn/base';
import type { VectorColumn } from '@cairn/schema';
import type { CodeColumn } from './code-scan.ts';
import { codesBefore } from './graph-codes.ts';
import { concatHits } from './hit-list.ts';
import { readTrailer } from './index-file.ts';
import { isGraph } from './index-params.ts';
import { checkRange, metricOf } from './metric.ts';
import { OwnThread } from './own-thread.ts';
import { ownEntries, type ScalarBuildTask } from './scalar-build.ts';
import { codeScanNs, exactNs, graphNs, routeOf } from './search-cost.ts';
import type {
  BuildRequest,
  BuiltIndex,
  DenseVectors,
  ExactQuery,
  GraphCodes,
  IndexHits,
  IndexQuery,
  OpenIndex,
  VectorQuery,
  VectorSource,
} from './search-types.ts';
import { type EngineResult, type EngineTask, VectorEngine } from './vector-engine.ts';
import { WorkerGroup } from './worker-group.ts';

export interface IndexPoolOptions {
  readonly runtime: Runtime;
  /** Worker threads for searches; ignored under `runtime.inline`. */
  readonly threads: number;
  /** Tasks that may wait for a worker; one more is TooManyRequests. */
  readonly queueLimit?: number;
  /** Index files that one worker keeps mapped. */
  readonly openLimit?: number;
  /** Threads of one index build; builds run one after another, beside the search workers. */
  readonly buildThreads?: number;
  /** Builds that may wait. */
  readonly buildQueueLimit?: number;
}

type GraphWork = Extract<EngineTask, { op: 'graph' }>;

/** Queries that are worth a worker of their own when a request brings several. */
const QUERIES_PER_PART = 8;

/** Vector work in worker threads: building, graph search, exact search. One per process. Under `runtime.inline` everything runs at the call. */
export class IndexPool implements Service {
  readonly name = 'index-pool';
  readonly #workers: WorkerGroup | undefined;
  readonly #inline: VectorEngine;
  readonly #builds: Semaphore;
  readonly #threads: number;
  readonly #buildThreads: number;
  readonly #builders = new Set<WorkerGroup>();
  readonly #ownThread: OwnThread;
  readonly #codes = new Map<string, Promise<CodeColumn>>();
  readonly #runtime: Runtime;

  constructor(options: IndexPoolOptions) {
    const openLimit = options.openLimit ?? 512;
    this.#runtime = options.runtime;
    this.#threads = Math.max(1, options.threads);
    this.#ownThread = new OwnThread((callback) => void options.runtime.after(0, callback));
    this.#buildThreads = options.buildThreads ?? this.#threads;
    this.#inline = new VectorEngine(openLimit);
    this.#workers = options.runtime.inline ? undefined : new WorkerGroup(this.#threads, options.queueLimit ?? 10_000, openLimit);
    this.#builds = new Semaphore('index builds', 1, options.buildQueueLimit ?? 1_000);
  }

  async start(): Promise<void> {}

  async stop(): Promise<void> {
    await Promise.all([this.#workers, ...this.#builders].map((group) => group?.stop()));
  }

  /** Builds an index into a file. A worker of its own does it and ends with it, so that the native memory is given back at once. */
  async build(request: BuildRequest): Promise<BuiltIndex> {
    return this.#builds.run(async () => {
      const task: EngineTask = { op: 'build', ...request, threads: this.#workers ? this.#buildThreads : 1 };
      const trailer = this.#workers ? await this.#runBuilder(task) : await this.#inline.run(task);
      if (!trailer.trailer) throw new CairnError('Internal', `building ${request.path} gave no trailer`);
      const { indexType, metric, params, rows } = trailer.trailer;
      return { indexType, metric, params, rows, path: request.path };
    });
  }

  /** Builds a scalar index into a file, in a worker of its own. */
  async buildScalar(request: ScalarBuildTask): Promise<void> {
    await this.#builds.run(async () => {
      const task: EngineTask = { op: 'buildScalar', ...request, entries: ownEntries(request.entries) };
      return this.#workers ? this.#runBuilder(task) : this.#inline.run(task);
    });
  }

  async #runBuilder(task: EngineTask): Promise<EngineResult> {
    const builder = new WorkerGroup(1, 1, 1);
    this.#builders.add(builder);
    try {
      return await builder.run(task);
    } finally {
      this.#builders.delete(builder);
      await builder.stop();
    }
  }

  /** Opens an index file that `build` wrote; ObjectDamaged when it is not one. Workers map it when they first search it. */
  async open(path: string): Promise<OpenIndex> {
    const trailer = readTrailer(path);
    const { indexType, metric, params, rows, dim } = trailer;
    const codes = dim > 0 && !trailer.scalar ? (trailer.codes ?? codesBefore(trailer.dataType)) : undefined;
    return { indexType, metric, params, rows, path, dim, codes };
  }

  /** Best rows by the index, filtered; by looking at every match where that is cheaper or the graph does not find enough. */
  async search(index: OpenIndex, query: IndexQuery): Promise<IndexHits> {
    check(query, index.metric);
    const { metric, rows } = index;
    if (!isGraph(index)) return this.exact({ ...query, vectors: await query.vectors(), metric, rows });
    const { dim = query.queries.length / query.nq / 4, codes = codesBefore(0) } = index;
    const vectors = denseVectors(await (query.inPlace ?? query.vectors)(), index);
    const codedRows = codes.scalar === 'i8' && !query.range;
    const route = routeOf(query, { rows, dim, scalar: codes.scalar, codedRows, stored: vectors.kind === 'stored' });
    if (route.kind === 'nothing') return emptyHits(query.nq);
    if (route.kind === 'exact') return this.exact({ ...query, vectors, metric, rows });
    const { k, range } = query;
    const filter = query.filter && owned(query.filter);
    if (route.kind === 'codes') return this.#scan(index, { ...query, filter }, vectors, codes, route.matching);
    const { breadth, maxBreadth } = route;
    const parts = await Promise.all(
      this.#parts(query).map(async (part) => {
        const task: GraphWork = {
          op: 'graph',
          path: index.path,
          ...part,
          k,
          range,
          filter,
          breadth,
          maxBreadth,
          vectors,
          share: route.matching / index.rows,
        };
        const result = await this.#graph(task, index.rows, graphNs(codes.scalar, breadth, dim) * part.nq);
        const hits = hitsOf(result);
        const unfinished = result.unfinished ?? [];
        if (unfinished.length === 0) return hits;
        const left = { nq: unfinished.length, queries: chosen(part, unfinished) };
        const rest =
          route.rest === 'codes'
            ? this.#scan(index, { ...query, ...left, filter }, vectors, codes, route.matching)
            : this.exact({ ...query, ...left, vectors, metric, rows });
        return replaceHits(hits, unfinished, await rest);
      }),
    );
    return concatHits(parts);
  }

  /** Best rows by looking at every one that the filter lets through. */
  async exact(query: ExactQuery): Promise<IndexHits> {
    check(query, query.metric);
    const { vectors, metric, k, range, rows = vectors.length } = query;
    const filter = query.filter && owned(query.filter);
    // Queries of different lengths are not dealt out.
    const uneven = vectors.kind === 'bytes' || vectors.kind === 'list';
    const parts = uneven ? [{ queries: query.queries, nq: query.nq }] : this.#parts(query);
    const task = { op: 'exact', vectors, metric, k, filter, range, rows } as const;
    if (!this.#workers || (vectors.kind === 'vector' && this.#ownThread.mayHold(query.nq * exactNs(query, rows, vectors.dim))))
      return hitsOf(this.#inline.exact({ ...task, queries: query.queries, nq: query.nq }));
    const source = shareable(vectors, rows);
    return concatHits(await Promise.all(parts.map(async (part) => hitsOf(await this.#run({ ...task, ...part, vectors: source })))));
  }

  /** Closes an index file in every worker. */
  async release(path: string): Promise<void> {
    this.#workers?.release(path);
    this.#ownThread.forget(path);
    this.#codes.delete(path);
    await this.#inline.run({ op: 'release', path });
  }

  /** What the filter leaves, looked at through the codes of the rows. */
  async #scan(index: OpenIndex, query: IndexQuery, vectors: DenseVectors, codes: GraphCodes, matching: number): Promise<IndexHits> {
    const { metric, path, rows } = index;
    const { k, filter } = query;
    const column = await this.#codesOf(path, vectors, codes);
    const source = this.#workers ? (shareable(vectors, rows) as DenseVectors) : vectors;
    const parts = await Promise.all(
      this.#parts(query).map(async (part) => {
        const task: EngineTask = { op: 'codeScan', ...part, k, filter, metric, rows, vectors: source, codes, column };
        const quick = !this.#workers || this.#ownThread.mayHold(codeScanNs(matching, rows, vectors.dim, part.nq) * part.nq);
        const result = quick ? this.#inline.codeScan(task) : await this.#run(task);
        const unfinished = result.unfinished ?? [];
        if (unfinished.length === 0) return hitsOf(result);
        const left = { nq: unfinished.length, queries: chosen(part, unfinished) };
        return replaceHits(hitsOf(result), unfinished, await this.exact({ ...query, ...left, vectors, metric, rows }));
      }),
    );
    return concatHits(parts);
  }

  /** Codes of all rows of an index, written at the first search that wants them and kept until it is released. */
  #codesOf(path: string, vectors: DenseVectors, codes: GraphCodes): Promise<CodeColumn> {
    const known = this.#codes.get(path);
    if (known) return known;
    const written = this.#run({ op: 'codes', vectors: shareable(vectors, vectors.length) as DenseVectors, codes }).then(({ column }) => {
      if (!column) throw new CairnError('Internal', `writing the codes of ${path} gave none`);
      return column;
    });
    this.#codes.set(path, written);
    written.catch(() => this.#codes.delete(path));
    return written;
  }

  /** At the call when that is quick, else in a worker. */
  async #graph(task: GraphWork, rows: number, estimate: number): Promise<EngineResult> {
    if (!this.#workers) return this.#inline.run(task);
    const { path, breadth, maxBreadth, nq } = task;
    const travelling = (): GraphWork => ({ ...task, vectors: task.vectors && (shareable(task.vectors, rows) as DenseVectors) });
    if (!this.#ownThread.takes(path, rows, estimate)) return this.#ownThread.elsewhere(path, () => this.#run(travelling()));
    // One round only: what a filter leaves unfinished takes longer than was estimated.
    const search = (): EngineResult => this.#inline.graph({ ...task, maxBreadth: breadth });
    const result = this.#ownThread.measures(path) ? this.#measured(path, estimate, search) : search();
    const again = breadth * 2 <= maxBreadth && (result.unfinished?.length ?? 0) === nq;
    return again ? this.#run({ ...travelling(), breadth: breadth * 2 }) : result;
  }

  #measured(path: string, estimate: number, search: () => EngineResult): EngineResult {
    const started = this.#runtime.monotonic();
    const before = process.threadCpuUsage();
    const result = search();
    const { user, system } = process.threadCpuUsage(before);
    this.#ownThread.learn(path, estimate, { wallNs: (this.#runtime.monotonic() - started) * 1e6, cpuNs: (user + system) * 1e3 });
    return result;
  }

  #run(task: EngineTask): Promise<EngineResult> {
    return this.#workers ? this.#workers.run(task) : this.#inline.run(task);
  }

  /** Many queries are dealt out to the workers; the queries of a part are copied so that only they travel. */
  #parts(query: VectorQuery): { readonly queries: Uint8Array; readonly nq: number }[] {
    const count = this.#workers ? Math.max(1, Math.min(this.#threads, Math.floor(query.nq / QUERIES_PER_PART))) : 1;
    if (count === 1) return [{ queries: owned(query.queries), nq: query.nq }];
    const bytes = query.queries.length / query.nq;
    return Array.from({ length: count }, (_, i) => {
      const from = Math.floor((i * query.nq) / count);
      const end = Math.floor(((i + 1) * query.nq) / count);
      return { queries: query.queries.slice(from * bytes, end * bytes), nq: end - from };
    });
  }
}

function check(query: VectorQuery, metric: string): void {
  if (query.nq < 1 || query.k < 1) throw new CairnError('InvalidParameter', `nq (${query.nq}) and limit (${query.k}) must be at least 1`);
  if (query.range) checkRange(metricOf(metric), query.range);
}

/** The vectors by which hits are scored, so that a row has one score on every way to it: dense, and as many as the index has rows. */
function denseVectors(vectors: VectorSource, index: OpenIndex): DenseVectors {
  if (vectors.kind === 'bytes' || vectors.kind === 'list' || vectors.length < index.rows)
    throw new CairnError(
      'Internal',
      `index file ${index.path} of ${index.rows} rows was searched with ${vectors.length} ${vectors.kind} rows`,
    );
  return vectors;
}

function hitsOf(result: EngineResult): IndexHits {
  if (!result.hits) throw new CairnError('Internal', 'a vector search gave no hits');
  return result.hits;
}

const emptyHits = (nq: number): IndexHits => ({ counts: new Uint32Array(nq), rows: new Int32Array(0), scores: new Float32Array(0) });

function chosen(part: { readonly queries: Uint8Array; readonly nq: number }, numbers: readonly number[]): Uint8Array {
  const bytes = part.queries.length / part.nq;
  const out = new Uint8Array(numbers.length * bytes);
  numbers.forEach((number, i) => {
    out.set(part.queries.subarray(number * bytes, (number + 1) * bytes), i * bytes);
  });
  return out;
}

/** Hits in which the queries `numbers` (which have none) are those of `rest`, in order. */
function replaceHits(hits: IndexHits, numbers: readonly number[], rest: IndexHits): IndexHits {
  const parts: IndexHits[] = [];
  const starts = { hits: 0, rest: 0 };
  let next = 0;
  hits.counts.forEach((_, query) => {
    const fromRest = numbers[next] === query;
    const [source, key, index] = fromRest ? ([rest, 'rest', next++] as const) : ([hits, 'hits', query] as const);
    const count = source.counts[index];
    const from = starts[key];
    starts[key] += count;
    parts.push({
      counts: Uint32Array.of(count),
      rows: source.rows.subarray(from, from + count),
      scores: source.scores.subarray(from, from + count),
    });
  });
  return concatHits(parts);
}

/**
 * Vectors as they travel: shared memory as it is, the rest copied, and of that only the rows that are looked at. A message takes the whole
 * buffer under a view with it, so a small view of a large buffer must be cut out first. Vectors in a file stay there: workers read the same open file.
 */
function shareable(vectors: VectorSource, rows: number): VectorSource {
  const validity = vectors.validity && owned(vectors.validity);
  if (vectors.kind === 'stored') return { ...vectors, validity };
  if (vectors.kind === 'vector') return { ...vectors, data: owned(vectors.data, rows * vectors.bytesPerRow), validity };
  if (vectors.kind === 'list') {
    if (vectors.child.kind !== 'vector') throw new CairnError('Internal', `lists of a ${vectors.child.kind} column searched as vectors`);
    return {
      ...vectors,
      offsets: vectors.offsets.slice(0, rows + 1),
      child: shareable(vectors.child, vectors.offsets[rows]) as VectorColumn,
      validity,
    };
  }
  return { ...vectors, offsets: vectors.offsets.slice(0, rows + 1), data: owned(vectors.data, vectors.offsets[rows]), validity };
}

function owned(bytes: Uint8Array, length = bytes.length): Uint8Array {
  const whole = bytes.buffer instanceof SharedArrayBuffer || (bytes.byteLength === length && bytes.buffer.byteLength === length);
  return whole ? bytes : bytes.slice(0, length);
}
