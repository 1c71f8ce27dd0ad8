import { CairnError } from '@cairn/base';
import type { ObjectRef, SegmentRecord } from '@cairn/proto/cairn/meta';
import { type CollectionSchema, decodeSchema, readArrowFile } from '@cairn/schema';
import type { Deletes } from './deletes.ts';
import { readingObject } from './object-bytes.ts';
import { checkBytes, type ExaminedSegment, SegmentExaminer } from './segment-examiner.ts';

/** What an examiner is told, one after another: any objects; or a segment's begin, tables, deletes, finish. */
export type ExaminerTask =
  /** With `rows`: a table of so many. */
  | { readonly op: 'check'; readonly ref: ObjectRef; readonly bytes: Uint8Array; readonly rows?: number | undefined }
  | { readonly op: 'begin'; readonly record: SegmentRecord; readonly schema: Uint8Array }
  | { readonly op: 'add'; readonly ref: ObjectRef; readonly bytes: Uint8Array }
  | { readonly op: 'remove'; readonly deletes: Deletes }
  | { readonly op: 'finish' };

/** Works through the tasks of one segment at a time; here or in a worker thread. */
export class ExaminerLine {
  #segment: SegmentExaminer | undefined;
  #schema: { readonly bytes: Uint8Array; readonly schema: CollectionSchema } | undefined;

  *run(task: ExaminerTask): Generator<void, ExaminedSegment | undefined> {
    switch (task.op) {
      case 'check':
        yield* checkBytes(task.ref, task.bytes);
        if (task.rows !== undefined) checkRows(task.ref, task.bytes, task.rows);
        return undefined;
      case 'begin':
        this.#segment = new SegmentExaminer(task.record, this.#decoded(task.schema));
        return undefined;
      case 'add':
        yield* this.#current().add(task.ref, task.bytes);
        return undefined;
      case 'remove':
        yield* this.#current().remove(task.deletes);
        return undefined;
      case 'finish': {
        const examined = this.#current().finish();
        this.#segment = undefined;
        return examined;
      }
    }
  }

  #current(): SegmentExaminer {
    if (this.#segment === undefined) throw new CairnError('Internal', 'an examiner was given rows before a segment');
    return this.#segment;
  }

  #decoded(bytes: Uint8Array): CollectionSchema {
    if (this.#schema === undefined || Buffer.compare(this.#schema.bytes, bytes) !== 0)
      this.#schema = { bytes, schema: decodeSchema(bytes) };
    return this.#schema.schema;
  }
}

function checkRows({ key }: ObjectRef, bytes: Uint8Array, rows: number): void {
  const found = readingObject(key, () => readArrowFile(bytes)).length;
  if (found !== rows) throw new CairnError('ObjectDamaged', `object ${key}: ${found} rows, recorded ${rows}`);
}
