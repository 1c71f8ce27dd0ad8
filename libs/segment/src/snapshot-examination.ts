import { assert } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { DeltaLogRecord, ObjectRef, SegmentRecord } from '@cairn/proto/cairn/meta';
import type { Deletes } from './deletes.ts';
import { readDeltaLog } from './delta-log.ts';
import type { ExaminerPool } from './examiner-pool.ts';
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
    for (const log of this.#logs) if (log.object && mayDelete(log, segment)) yield this.#read(log.id, log.object);
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
  /** Awaited before so many bytes are read. */
  readonly throttle?: (bytes: number) => Promise<void>;
}

/**
 * Reads all rows of a segment: lengths, checksums, Arrow, row counts, content hash. Reading an object goes on while the one before is hashed.
 * ObjectNotFound and ObjectDamaged name the object.
 */
export function examineSegment(parts: ExaminationParts, record: SegmentRecord): Promise<ExaminedSegment> {
  const { objects, pool, schema, deletes } = parts;
  return pool.use(async (examiner) => {
    let before: Promise<unknown> = examiner.run({ op: 'begin', record, schema });
    for (const ref of tablesOf(record)) {
      const bytes = await fetchBytes(parts, objects, ref).catch(async (error: unknown) => {
        await before.catch(() => undefined);
        throw error;
      });
      await before;
      before = examiner.run({ op: 'add', ref, bytes });
      // Awaited at the next turn; until then a failure is nobody's.
      before.catch(() => undefined);
    }
    await before;
    for await (const some of deletes.of(record)) await examiner.run({ op: 'remove', deletes: some });
    const examined = await examiner.run({ op: 'finish' });
    assert(examined !== undefined, `segment ${record.id}: an examination without a result`);
    return examined;
  });
}

/** Reads an object whose rows are not hashed: length and checksum, and with `rows` that it is a table of so many. */
export async function examineObject(
  parts: Pick<ExaminationParts, 'objects' | 'pool' | 'throttle'>,
  ref: ObjectRef,
  rows?: number,
): Promise<void> {
  const bytes = await fetchBytes(parts, parts.objects, ref);
  await parts.pool.use(async (examiner) => {
    await examiner.run({ op: 'check', ref, bytes, rows });
  });
}

async function fetchBytes(parts: Pick<ExaminationParts, 'throttle'>, objects: ObjectStore, ref: ObjectRef): Promise<Uint8Array> {
  await parts.throttle?.(ref.size);
  return objects.get(ref.key);
}
