import { CairnError } from '@cairn/base';
import { parseObjectName } from '@cairn/catalog';
import type { DeltaLogRecord, ObjectRef, SegmentIndexRecord, SegmentRecord } from '@cairn/proto/cairn/meta';

/**
 * What is kept or deleted as one: a (segment, generation) by its prefix, a delta log or an index object by its key. Objects that follow no layout
 * of ours are units of their own.
 */
export function unitOf(object: ObjectRef): string {
  const name = parseObjectName(object.key);
  return name?.kind === 'segment' && object.role !== 'index' ? name.prefix : object.key;
}

/** What a snapshot's metadata names. */
export interface ReferringRecords {
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
  readonly segmentIndexes: readonly SegmentIndexRecord[];
}

/**
 * What one snapshot refers to, each list in order: units by their numbers, 16 bytes each (two units with one number only keep more alive than
 * needed), segments and index builds by their ids, 8 bytes each.
 */
export class ReferenceSet {
  readonly #numbers: Float64Array;
  readonly #bytes: Float64Array;
  readonly #segments: Float64Array;
  readonly #builds: Float64Array;

  constructor(records: ReferringRecords) {
    const pairs = [...unitsOf(records)].map(([unit, bytes]) => [numberOf(unit), bytes] as const).sort((a, b) => a[0] - b[0]);
    this.#numbers = Float64Array.from(pairs, (pair) => pair[0]);
    this.#bytes = Float64Array.from(pairs, (pair) => pair[1]);
    this.#segments = Float64Array.from(records.segments, (segment) => segment.id).sort();
    this.#builds = Float64Array.from(records.segmentIndexes, (build) => build.buildId).sort();
  }

  get size(): number {
    return this.#numbers.length;
  }

  numbers(): Float64Array {
    return this.#numbers;
  }

  has(number: number): boolean {
    return holds(this.#numbers, number);
  }

  hasSegment(id: number): boolean {
    return holds(this.#segments, id);
  }

  hasBuild(id: number): boolean {
    return holds(this.#builds, id);
  }

  bytesAt(position: number): number {
    return this.#bytes[position] ?? 0;
  }

  equals(other: ReferenceSet): boolean {
    return (
      same(this.#numbers, other.#numbers) &&
      same(this.#bytes, other.#bytes) &&
      same(this.#segments, other.#segments) &&
      same(this.#builds, other.#builds)
    );
  }
}

function same(a: Float64Array, b: Float64Array): boolean {
  return a.length === b.length && a.every((number, at) => number === b[at]);
}

/** Whether a number is in a list that is in order. */
function holds(numbers: Float64Array, number: number): boolean {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((numbers[middle] ?? 0) < number) low = middle + 1;
    else high = middle;
  }
  return numbers[low] === number;
}

/** Units and their bytes of these records. */
export function unitsOf(records: ReferringRecords): Map<string, number> {
  const units = new Map<string, number>();
  const add = (object: ObjectRef | undefined) => {
    if (object) units.set(unitOf(object), (units.get(unitOf(object)) ?? 0) + object.size);
  };
  for (const segment of records.segments) {
    // The prefix too: an index object may be all that is left to read from it.
    if (segment.prefix !== '') units.set(segment.prefix, units.get(segment.prefix) ?? 0);
    for (const object of segment.objects) add(object);
  }
  for (const log of records.deltaLogs) add(log.object);
  for (const build of records.segmentIndexes) add(build.object);
  return units;
}

const LOW = 2 ** 32;
const HIGH_BITS = 21;

/** A 53-bit number of a unit: two 32-bit multiplicative hashes of its characters, mixed at the end. */
export function numberOf(unit: string): number {
  let a = 0x243f6a88;
  let b = 0x85a308d3;
  for (let at = 0; at < unit.length; at++) {
    const code = unit.charCodeAt(at);
    if (code > 0x7f) throw new CairnError('Internal', `object key is not ASCII: ${JSON.stringify(unit)}`);
    a = Math.imul(a ^ code, 0x01000193);
    b = Math.imul(b ^ (code + at), 0x27d4eb2f);
  }
  a = Math.imul(a ^ (a >>> 15), 0x2c1b3c6d) ^ b;
  b = Math.imul(b ^ (b >>> 13), 0x297a2d39) ^ a;
  return ((b >>> (32 - HIGH_BITS)) >>> 0) * LOW + (a >>> 0);
}
