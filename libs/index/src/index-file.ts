import { appendFileSync, closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { CairnError } from '@cairn/base';
import type { ScalarHeader } from './scalar-index.ts';
import type { GraphCodes, IndexSpec } from './search-types.ts';

/**
 * An index file is what usearch saves (nothing, for an index that is an exact scan), then a JSON trailer that says what it is, the trailer's
 * length as u32 LE, and four letters. usearch finds its parts from the front and does not mind. A scalar index has two frames in its place.
 */
const MAGIC = Buffer.from('CVI1');
/** Of files whose distances are not exact: a version that would take them for exact sees no index. */
const CODED_MAGIC = Buffer.from('CVI2');
const FOOTER_BYTES = 8;
const MAX_TRAILER_BYTES = 65_536;

export interface IndexTrailer extends IndexSpec {
  readonly dataType: number;
  readonly dim: number;
  /** Rows of the column, those without a vector counted. */
  readonly rows: number;
  /** Rows in the graph. */
  readonly entries: number;
  /** Of a graph; absent: written before there was a choice. */
  readonly codes?: GraphCodes | undefined;
  /** Of a scalar index only. */
  readonly scalar?: ScalarHeader | undefined;
}

/** At the call: what builds an index has a thread of its own, or is simulated. */
export function appendTrailer(path: string, trailer: IndexTrailer): void {
  const text = Buffer.from(JSON.stringify(trailer));
  const footer = Buffer.alloc(FOOTER_BYTES);
  footer.writeUInt32LE(text.length);
  (trailer.codes && !trailer.codes.exact ? CODED_MAGIC : MAGIC).copy(footer, 4);
  appendFileSync(path, Buffer.concat([text, footer]));
}

/** Reads the trailer of an index file; ObjectDamaged when there is none. Two small reads. */
export function readTrailer(path: string): IndexTrailer {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new CairnError('ObjectNotFound', `index file ${path} cannot be opened`, { cause: error });
  }
  try {
    const { size } = fstatSync(fd);
    const footer = Buffer.alloc(FOOTER_BYTES);
    if (
      size < FOOTER_BYTES ||
      readSync(fd, footer, 0, FOOTER_BYTES, size - FOOTER_BYTES) !== FOOTER_BYTES ||
      !(footer.subarray(4).equals(MAGIC) || footer.subarray(4).equals(CODED_MAGIC))
    )
      throw new CairnError('ObjectDamaged', `index file ${path} (${size} bytes) has no trailer`);
    const length = footer.readUInt32LE();
    if (length > MAX_TRAILER_BYTES || length > size - FOOTER_BYTES)
      throw new CairnError('ObjectDamaged', `index file ${path} has a trailer of ${length} bytes`);
    const text = Buffer.alloc(length);
    readSync(fd, text, 0, length, size - FOOTER_BYTES - length);
    return parseTrailer(path, text.toString());
  } finally {
    closeSync(fd);
  }
}

function parseTrailer(path: string, text: string): IndexTrailer {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CairnError('ObjectDamaged', `index file ${path} has a damaged trailer`, { cause: error });
  }
  const trailer = value as IndexTrailer;
  const whole = [trailer?.dim, trailer?.rows, trailer?.entries, trailer?.dataType].every(Number.isSafeInteger);
  if (!whole || typeof trailer.indexType !== 'string' || typeof trailer.metric !== 'string' || typeof trailer.params !== 'object')
    throw new CairnError('ObjectDamaged', `index file ${path} has an incomplete trailer`);
  return trailer;
}
