import { assert } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { DeltaLogRecord, ObjectRef, SegmentRecord } from '@cairn/proto/cairn/meta';
import { type Deletes, deletesAsOf } from './deletes.ts';
import { readDeltaLog } from './delta-log.ts';
import type { Examiner, ExaminerPool } from './examiner-pool.ts';
import type { ReadBuffers } from './read-buffers.ts';
import { type ExaminedSegment, tablesOf } from './segment-examiner.ts';
import { mayDelete } from './snapshot-content.ts';

/** Bytes of deletes kept between segments of a shard; beyond, logs are read again. */
const KEPT_DELETE_BYTES = 64 * 1024 * 1024;

/** Delta logs of a snapshot, read when they are needed and kept while there is room. */
export class DeleteReader {
  readonly #objects: ObjectStore;
  readonly #logs: readonly DeltaLogRecord[];
  readonly #kept = new Map<number, { readonly deletes: Promise<Deletes>; readonly bytes: number }>();
  #bytes = 0;

  constructor(objects: ObjectStore, logs: readonly DeltaLogRecord[]) {
    this.#objects = objects;
    this.#logs = logs;
  }

  /** Deletes that may hit rows of the segment, log by log. ObjectNotFound and ObjectDamaged name the log. */
  async *of(segment: SegmentRecord): AsyncGenerator<Deletes> {
    for (const log of this.#logs)
      if (log.object && mayDelete(log, segment)) yield deletesAsOf(await this.#read(log.id, log.object), log.asOf);
  }

  #read(id: number, object: ObjectRef): Promise<Deletes> {
    const known = this.#kept.get(id);
    if (known) return known.deletes;
    const deletes = readDeltaLog(this.#objects, object);
    deletes.catch(() => this.#forget(id));
    this.#kept.set(id, { deletes, bytes: object.size });
    this.#bytes += object.size;
    for (const oldest of this.#kept.keys()) {
      if (this.#bytes <= KEPT_DELETE_BYTES || oldest === id) break;
      this.#forget(oldest);
    }
    return deletes;
  }

  #forget(id: number): void {
    this.#bytes -= this.#kept.get(id)?.bytes ?? 0;
    this.#kept.delete(id);
  }
}

export interface ExaminationParts {
  readonly objects: ObjectStore;
  readonly pool: ExaminerPool;
  /** Of the snapshot: an encoded CollectionSchema. */
  readonly schema: Uint8Array;
  readonly deletes: DeleteReader;
  readonly ahead?: ReadAhead;
  /** Where objects are read into. */
  readonly buffers?: ReadBuffers;
  /** Awaited before so many bytes are read. */
  readonly throttle?: (bytes: number) => Promise<void>;
}

/** Bytes of objects that are read for segments which wait for an examiner. */
const AHEAD_BYTES = 96 * 1024 * 1024;

/** Room for objects that are read before there is an examiner for them: reading and hashing then go on at the same time. */
export class ReadAhead {
  #free = AHEAD_BYTES;

  /** False when there is no room: the object is read when its turn comes. */
  take(bytes: number): boolean {
    if (bytes > this.#free) return false;
    this.#free -= bytes;
    return true;
  }

  release(bytes: number): void {
    this.#free += bytes;
  }
}

/**
 * Reads all rows of a segment: lengths, checksums, Arrow, row counts, content hash. Reading an object goes on while the one before is hashed.
 * ObjectNotFound and ObjectDamaged name the object.
 */
export async function examineSegment(parts: ExaminationParts, record: SegmentRecord): Promise<ExaminedSegment> {
  const tables = tablesOf(record);
  const ahead = new Map<ObjectRef, Promise<Uint8Array>>();
  for (const ref of tables) {
    if (!parts.ahead?.take(ref.size)) break;
    const reading = fetchBytes(parts, ref);
    reading.catch(() => undefined);
    ahead.set(ref, reading);
  }
  const bytesOf = async (ref: ObjectRef): Promise<Uint8Array> => {
    const reading = ahead.get(ref);
    if (!reading) return fetchBytes(parts, ref);
    try {
      return await reading;
    } finally {
      if (ahead.delete(ref)) parts.ahead?.release(ref.size);
    }
  };
  try {
    return await parts.pool.use((examiner) => examineWith(examiner, parts, record, tables, bytesOf));
  } finally {
    for (const ref of ahead.keys()) parts.ahead?.release(ref.size);
  }
}

async function examineWith(
  examiner: Examiner,
  { schema, deletes, buffers }: ExaminationParts,
  record: SegmentRecord,
  tables: readonly ObjectRef[],
  bytesOf: (ref: ObjectRef) => Promise<Uint8Array>,
): Promise<ExaminedSegment> {
  let before: Promise<unknown> = examiner.run({ op: 'begin', record, schema });
  before.catch(() => undefined);
  for (const ref of tables) {
    const bytes = await bytesOf(ref);
    await before;
    before = examiner.run({ op: 'add', ref, bytes }).finally(() => buffers?.giveBack(bytes));
    // Awaited at the next turn; until then a failure is nobody's.
    before.catch(() => undefined);
  }
  await before;
  for await (const some of deletes.of(record)) await examiner.run({ op: 'remove', deletes: some });
  const examined = await examiner.run({ op: 'finish' });
  assert(examined !== undefined, `segment ${record.id}: an examination without a result`);
  return examined;
}

/** Reads an object whose rows are not hashed: length and checksum, and with `rows` that it is a table of so many. */
export async function examineObject(
  parts: Pick<ExaminationParts, 'objects' | 'pool' | 'buffers' | 'throttle'>,
  ref: ObjectRef,
  rows?: number,
): Promise<void> {
  const bytes = await fetchBytes(parts, ref);
  await parts.pool.use(async (examiner) => {
    await examiner.run({ op: 'check', ref, bytes, rows }).finally(() => parts.buffers?.giveBack(bytes));
  });
}

async function fetchBytes(
  { throttle, objects, buffers }: Pick<ExaminationParts, 'throttle' | 'objects' | 'buffers'>,
  ref: ObjectRef,
): Promise<Uint8Array> {
  await throttle?.(ref.size);
  return objects.get(ref.key, undefined, buffers && ((bytes) => buffers.take(bytes)));
}
