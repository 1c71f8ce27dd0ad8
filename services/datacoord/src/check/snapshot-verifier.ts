import { asCairnError, CairnError, hasCode, isRetriable, mapLimit, type Runtime } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef, SegmentRecord, SnapshotDefinition, SnapshotRecord } from '@cairn/proto/cairn/meta';
import type { Finding, VerifyReport } from '@cairn/proto/cairn/upkeep';
import {
  addHashes,
  DeleteReader,
  DeleteWindows,
  type ExaminationParts,
  type ExaminedSegment,
  type ExaminerPool,
  examineObject,
  examineSegment,
  formatHash,
  isSeenAsStored,
  parseHash,
  ReadAhead,
  ReadBuffers,
  type RowSum,
  readSnapshot,
  type SnapshotBundle,
  type SnapshotContents,
  schemaTraits,
  tablesOf,
} from '@cairn/segment';
import { infosOf, whyNot } from './object-infos.ts';

/** A page ends after this long: a caller hears of it about every other second. */
const PAGE_MS = 1_500;
/** Objects asked for at once when only heads are compared. */
const PARALLEL_HEADS = 64;
/** Units whose heads are compared between two looks at the clock. */
const HEADS_STRIDE = 1_000;
/** Segments read at once for each hashing thread: one is read while another is hashed. */
const READERS_PER_THREAD = 2;

/** Of buffers that wait for their next object, during one verification. */
const KEPT_BUFFER_BYTES = 64 * 1024 * 1024;

export interface VerifyOptions {
  readonly deep: boolean;
  readonly paged?: boolean;
  readonly cursor?: string;
  /** Awaited before so many bytes are read; rejects to end the verification. */
  readonly throttle?: (bytes: number) => Promise<void>;
}

/** One thing to look at: a segment with its tables and index objects, a delta log, or a manifest. */
interface Unit {
  readonly segment?: SegmentRecord;
  readonly objects: readonly { readonly ref: ObjectRef; readonly rows?: number }[];
  readonly by: string;
}

/** What the pages so far have found; travels in the cursor, so that any coordinator can go on. */
interface Progress {
  readonly snapshotId: number;
  readonly at: number;
  readonly objects: number;
  readonly bytes: number;
  readonly segments: number;
  readonly hashed: number;
  readonly stored: string;
  readonly visibleRows: number;
  readonly visible: string;
  /** Segments whose rows could not be hashed: the sums say nothing then. */
  readonly unread: number;
  readonly elapsedMs: number;
}

const ZERO = formatHash(0n);

/**
 * That a snapshot can be restored: metadata, manifests, every object there with its length and tag; deep: all bytes are read, checksums, row counts and
 * content hashes compared. A store that is away is an error, not damage.
 */
export class SnapshotVerifier {
  readonly #objects: ObjectStore;
  readonly #runtime: Runtime;
  readonly #pool: ExaminerPool;
  readonly #ahead = new ReadAhead();

  constructor({ objects, runtime, pool }: { readonly objects: ObjectStore; readonly runtime: Runtime; readonly pool: ExaminerPool }) {
    this.#objects = objects;
    this.#runtime = runtime;
    this.#pool = pool;
  }

  async verify(record: SnapshotRecord, options: VerifyOptions): Promise<VerifyReport> {
    const started = this.#runtime.monotonic();
    const before = options.cursor ? decodeCursor(options.cursor, record.id) : undefined;
    const findings: Finding[] = [];
    let bundle: SnapshotBundle;
    try {
      bundle = await readSnapshot(this.#objects, record.metadataKey, { withSegments: true });
    } catch (error) {
      if (!isDamage(error)) throw error;
      findings.push({ kind: 'snapshot', subject: record.name, detail: asCairnError(error).message });
      return { ...empty(record, options), findings };
    }
    const units = unitsOf(bundle);
    let progress: Progress = before ?? start(record.id);
    const parts = this.#parts(bundle, options);
    const pageEnds = () => options.paged === true && this.#runtime.monotonic() - started > PAGE_MS;
    if (options.deep) {
      const rest = units.slice(progress.at);
      const results: (ExaminedSegment | undefined)[] = [];
      // Units are begun in order: those begun when the page ends are the first ones.
      let begun = 0;
      await mapLimit(rest, this.#pool.size * READERS_PER_THREAD, async (unit, at) => {
        if (at > 0 && pageEnds()) return;
        begun = at + 1;
        results[at] = await this.#look(unit, parts, findings);
      });
      progress = advance(progress, rest.slice(0, begun), results);
    } else {
      while (progress.at < units.length) {
        const some = units.slice(progress.at, progress.at + HEADS_STRIDE);
        await this.#heads(some, findings);
        progress = advance(progress, some, []);
        if (pageEnds()) break;
      }
    }
    const elapsedMs = progress.elapsedMs + Math.round(this.#runtime.monotonic() - started);
    progress = { ...progress, elapsedMs };
    const done = progress.at >= units.length;
    if (done) findings.push(...lastLook(bundle, progress, options.deep));
    return report(bundle, { progress, findings, units, done, deep: options.deep });
  }

  /**
   * Count and content hash of the rows that readers of the snapshot see. Only segments are read of which some rows are deleted, masked, or have a
   * late default. ObjectDamaged and ObjectNotFound name the object.
   */
  async visible(record: SnapshotRecord, throttle?: (bytes: number) => Promise<void>): Promise<RowSum> {
    const bundle = await readSnapshot(this.#objects, record.metadataKey, { withSegments: true });
    const traits = schemaTraits(bundle.definition);
    const deletes = new DeleteWindows(bundle.deltaLogs);
    const known = (segment: SegmentRecord) => isSeenAsStored(segment, deletes, traits);
    return this.#sum(bundle, this.#parts(bundle, throttle ? { throttle } : {}), known);
  }

  /** The same of records, every segment read in full, its recorded content hash compared. */
  readVisible(contents: Pick<SnapshotContents, 'segments' | 'deltaLogs'>, definition: SnapshotDefinition): Promise<RowSum> {
    return this.#sum(contents, this.#parts({ ...contents, definition }, {}), () => false);
  }

  async #sum(
    { segments }: Pick<SnapshotContents, 'segments'>,
    parts: ExaminationParts,
    known: (segment: SegmentRecord) => boolean,
  ): Promise<RowSum> {
    const sums = await mapLimit(segments, this.#pool.size * READERS_PER_THREAD, async (segment): Promise<RowSum> => {
      if (known(segment)) return { rows: segment.rows, hash: parseHash(segment.contentHash) };
      return (await examineSegment(parts, segment)).visible;
    });
    return { rows: sums.reduce((total, one) => total + one.rows, 0), hash: addHashes(sums.map((one) => one.hash)) };
  }

  #parts(bundle: Pick<SnapshotBundle, 'definition' | 'deltaLogs'>, { throttle }: Pick<VerifyOptions, 'throttle'>): ExaminationParts {
    return {
      objects: this.#objects,
      pool: this.#pool,
      schema: bundle.definition.collection?.schema ?? new Uint8Array(),
      deletes: new DeleteReader(this.#objects, bundle.deltaLogs),
      ahead: this.#ahead,
      buffers: new ReadBuffers(KEPT_BUFFER_BYTES),
      ...(throttle ? { throttle } : {}),
    };
  }

  /** Heads of everything: there, of the recorded length and tag. */
  async #heads(units: readonly Unit[], findings: Finding[]): Promise<void> {
    const wanted = units.flatMap((unit) => refsOf(unit).map((ref) => ({ ref, by: unit.by })));
    const found = await infosOf(
      this.#objects,
      wanted.map(({ ref }) => ref.key),
      PARALLEL_HEADS,
    );
    for (const { ref, by } of wanted) {
      const detail = whyNot(ref, found.get(ref.key));
      if (detail !== undefined) findings.push({ kind: 'object', subject: ref.key, detail: `${detail} (${by})` });
    }
  }

  /** Answers the sums of a segment that was read in full. */
  async #look(unit: Unit, parts: ExaminationParts, findings: Finding[]): Promise<ExaminedSegment | undefined> {
    for (const { ref, rows } of unit.objects) await this.#guarded(ref.key, unit.by, findings, () => examineObject(parts, ref, rows));
    const { segment } = unit;
    return segment && this.#guarded(segment.prefix, unit.by, findings, () => examineSegment(parts, segment));
  }

  /** Damage becomes a finding that names the object; anything else is thrown. */
  async #guarded<T>(subject: string, by: string, findings: Finding[], work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!isDamage(error)) throw error;
      const { message } = asCairnError(error);
      const key = /\b(?:object(?: not found:)?) (\S+?)[:,]?(?:\s|$)/.exec(message)?.[1];
      findings.push({ kind: 'object', subject: key ?? subject, detail: `${message} (${by})` });
      return undefined;
    }
  }
}

function isDamage(error: unknown): boolean {
  if (isRetriable(error)) return false;
  return hasCode(error, 'ObjectDamaged') || hasCode(error, 'ObjectNotFound') || hasCode(error, 'NotSupported');
}

function unitsOf(bundle: SnapshotBundle): Unit[] {
  const builds = Map.groupBy(bundle.segmentIndexes, (build) => build.segmentId);
  return [
    ...bundle.segments.map(
      (segment): Unit => ({
        segment,
        objects: (builds.get(segment.id) ?? []).flatMap((build) => (build.object ? [{ ref: build.object }] : [])),
        by: `segment ${segment.id}`,
      }),
    ),
    ...bundle.deltaLogs.flatMap((log): Unit[] =>
      log.object ? [{ objects: [{ ref: log.object, rows: log.rows }], by: `delta log ${log.id}` }] : [],
    ),
    ...bundle.manifestObjects.map((ref): Unit => ({ objects: [{ ref }], by: `snapshot ${bundle.record.name}` })),
  ];
}

function refsOf(unit: Unit): ObjectRef[] {
  return [...unit.objects.map((object) => object.ref), ...(unit.segment ? tablesOf(unit.segment) : [])];
}

const sizeOf = (units: readonly Unit[]): { readonly objects: number; readonly bytes: number } => {
  let objects = 0;
  let bytes = 0;
  for (const unit of units) {
    for (const ref of refsOf(unit)) {
      objects++;
      bytes += ref.size;
    }
  }
  return { objects, bytes };
};

function start(snapshotId: number): Progress {
  const none = { at: 0, objects: 0, bytes: 0, segments: 0, hashed: 0, visibleRows: 0, unread: 0, elapsedMs: 0 };
  return { snapshotId, ...none, stored: ZERO, visible: ZERO };
}

function advance(before: Progress, units: readonly Unit[], results: readonly (ExaminedSegment | undefined)[]): Progress {
  const { objects, bytes } = sizeOf(units);
  const read = results.filter((result) => result !== undefined);
  const segments = units.flatMap((unit) => (unit.segment ? [unit.segment] : []));
  return {
    ...before,
    at: before.at + units.length,
    objects: before.objects + objects,
    bytes: before.bytes + bytes,
    segments: before.segments + segments.length,
    hashed: before.hashed + results.filter((result, i) => result && units[i]?.segment?.contentHash !== '').length,
    unread: before.unread + segments.length - read.length,
    stored: formatHash(addHashes([parseHash(before.stored), ...read.map((one) => one.stored.hash)])),
    visibleRows: before.visibleRows + read.reduce((sum, one) => sum + one.visible.rows, 0),
    visible: formatHash(addHashes([parseHash(before.visible), ...read.map((one) => one.visible.hash)])),
  };
}

/** What only the whole tells. */
function lastLook({ record, segments, rows, content }: SnapshotBundle, progress: Progress, deep: boolean): Finding[] {
  const findings: Finding[] = [];
  const add = (detail: string): void => {
    findings.push({ kind: 'snapshot', subject: record.name, detail });
  };
  const counted = segments.reduce((sum, segment) => sum + segment.rows, 0);
  if (counted !== rows) add(`${counted} rows in its segments, ${rows} in its metadata`);
  if (!deep || progress.unread > 0 || !content) return findings;
  if (content.stored !== '' && content.stored !== progress.stored)
    add(`content hash of the stored rows is ${progress.stored}, recorded ${content.stored}`);
  if (content.visible !== '' && (content.visible !== progress.visible || content.visibleRows !== progress.visibleRows))
    add(
      `content hash of ${progress.visibleRows} visible rows is ${progress.visible}, recorded ${content.visible} of ${content.visibleRows} rows`,
    );
  return findings;
}

function report(
  bundle: SnapshotBundle,
  found: {
    readonly progress: Progress;
    readonly findings: Finding[];
    readonly units: readonly Unit[];
    readonly done: boolean;
    readonly deep: boolean;
  },
): VerifyReport {
  const { progress, findings, units, done, deep } = found;
  const total = sizeOf(units);
  const whole = done && deep && progress.unread === 0;
  return {
    findings,
    objects: progress.objects,
    bytes: progress.bytes,
    segments: progress.segments,
    snapshots: 1,
    elapsedMs: progress.elapsedMs,
    cursor: done ? '' : Buffer.from(JSON.stringify(progress)).toString('base64url'),
    totalObjects: total.objects,
    totalBytes: total.bytes,
    hashedSegments: progress.hashed,
    unrecordedSegments: deep ? progress.segments - progress.unread - progress.hashed : 0,
    contentHash: whole ? progress.stored : '',
    visibleRows: whole ? progress.visibleRows : 0,
    visibleHash: whole ? progress.visible : '',
    snapshotId: bundle.record.id,
    snapshotName: bundle.record.name,
    deep,
  };
}

function empty(record: SnapshotRecord, { deep }: VerifyOptions): VerifyReport {
  const none = {
    objects: 0,
    bytes: 0,
    segments: 0,
    elapsedMs: 0,
    totalObjects: 0,
    totalBytes: 0,
    hashedSegments: 0,
    unrecordedSegments: 0,
  };
  const sums = { contentHash: '', visibleRows: 0, visibleHash: '' };
  return { findings: [], snapshots: 1, cursor: '', ...none, ...sums, snapshotId: record.id, snapshotName: record.name, deep };
}

function decodeCursor(cursor: string, snapshotId: number): Progress {
  try {
    const progress = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8')) as Progress;
    if (progress.snapshotId === snapshotId && Number.isSafeInteger(progress.at)) return progress;
  } catch {
    // Said below.
  }
  throw new CairnError('InvalidParameter', `this cursor is not of a verification of snapshot ${snapshotId}`);
}
