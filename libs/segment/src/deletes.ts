import { assert } from '@cairn/base';
import { type Column, concatColumns, sliceColumn, takeColumn } from '@cairn/schema';

/** Deletes of one shard in order of arrival. All columns have one length. */
export interface Deletes {
  readonly keys: Column;
  /** A row is deleted when its timestamp is smaller than this, from this timestamp on. */
  readonly ts: Float64Array;
  /** Above 0: a delete by filter; deletes rows with timestamp <= readTs instead. */
  readonly readTs: Float64Array;
}

/** Deletes of keys at one timestamp; with a readTs, those of a delete by filter. */
export function deletesOf(keys: Column, ts: number, readTs = 0): Deletes {
  return { keys, ts: new Float64Array(keys.length).fill(ts), readTs: new Float64Array(keys.length).fill(readTs) };
}

/** Back to back, in the order given. At least one. */
export function concatDeletes(parts: readonly Deletes[]): Deletes {
  if (parts.length === 1) return parts[0];
  const keys = concatColumns(parts.map((part) => part.keys));
  const ts = new Float64Array(keys.length);
  const readTs = new Float64Array(keys.length);
  let at = 0;
  for (const part of parts) {
    ts.set(part.ts, at);
    readTs.set(part.readTs, at);
    at += part.ts.length;
  }
  return { keys, ts, readTs };
}

/** Deletes [start, end). */
export function sliceDeletes(deletes: Deletes, start: number, end: number): Deletes {
  return { keys: sliceColumn(deletes.keys, start, end), ts: deletes.ts.subarray(start, end), readTs: deletes.readTs.subarray(start, end) };
}

/** Deletes at or before a timestamp: what a snapshot at it sees of a delta log. 0: all. */
export function deletesAsOf(deletes: Deletes, asOf: number): Deletes {
  if (asOf === 0 || deletes.ts.every((ts) => ts <= asOf)) return deletes;
  const rows = Int32Array.from(deletes.ts.keys()).filter((row) => deletes.ts[row] <= asOf);
  const pick = (values: Float64Array): Float64Array => Float64Array.from(rows, (row) => values[row]);
  return { keys: takeColumn(deletes.keys, rows), ts: pick(deletes.ts), readTs: pick(deletes.readTs) };
}

/** A delete at `ts` hits a row of its key with this timestamp. An upsert's own rows have the timestamp of its delete and are not hit. */
export function deleteHits(rowTs: number, ts: number, readTs: number): boolean {
  return readTs > 0 ? rowTs <= readTs : rowTs < ts;
}

/** Deletes of a shard in WAL order, kept between flushes. */
export class DeleteBuffer {
  readonly #entries: { readonly sequence: number; readonly deletes: Deletes }[] = [];
  #rows = 0;
  #lastSequence = 0;

  get rows(): number {
    return this.#rows;
  }

  /** Sequence of the last delete record ever added, 0 when none. */
  get lastSequence(): number {
    return this.#lastSequence;
  }

  /** Sequences grow; the records of one batch may share one. */
  add(sequence: number, deletes: Deletes): void {
    assert(sequence >= this.#lastSequence, `delete at sequence ${sequence} comes after ${this.#lastSequence}`);
    this.#entries.push({ sequence, deletes });
    this.#rows += deletes.ts.length;
    this.#lastSequence = sequence;
  }

  /** Deletes with after < sequence <= upTo, in order. undefined when none. */
  between(after: number, upTo: number): Deletes | undefined {
    const parts = this.#entries.slice(this.#firstAfter(after), this.#firstAfter(upTo)).map((entry) => entry.deletes);
    return parts.length === 0 ? undefined : concatDeletes(parts);
  }

  /** Forgets what is at or before the sequence. */
  trim(upTo: number): void {
    for (const { deletes } of this.#entries.splice(0, this.#firstAfter(upTo))) this.#rows -= deletes.ts.length;
  }

  #firstAfter(sequence: number): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#entries[middle].sequence <= sequence) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
