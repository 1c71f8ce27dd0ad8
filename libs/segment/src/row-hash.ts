import { assert, type Bitmap, CairnError } from '@cairn/base';
import {
  type BytesColumn,
  type Column,
  DataType,
  type FixedColumn,
  isValid,
  type ListColumn,
  TIMESTAMP_FIELD,
  type VectorColumn,
} from '@cairn/schema';
import { canonicalJson } from './canonical-json.ts';
import { MurmurLanes } from './murmur-lanes.ts';

/**
 * Content hashes of rows. A row's hash is MurmurHash3_x86_128 (seed 0) of its canonical bytes: its cells one after the other, each a whole number
 * of 16-byte blocks that begins with the field id. docs/format.md lays them down; whoever has a Murmur3 library can compute them row by row. Here
 * they are computed column by column over a state per row, so that no row is ever put together.
 */
const BLOCK_BYTES = 16;
/** Bytes of cells that are mixed in one stretch: about 1 ms. */
const SLICE_BYTES = 1024 * 1024;
/** Sums of this many 32-bit numbers are exact in a double. */
const EXACT_ADDS = 1 << 20;

/** Multipliers of Murmur3_x86_128. */
const C1 = 0x239b961b;
const C2 = 0xab0e9789 | 0;
const C3 = 0x38b34ae5;
const C4 = 0xa1e38b93 | 0;

const littleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** Murmur3's state of every row of a segment: four 32-bit lanes and the bytes mixed so far. */
export class RowHashes {
  readonly rows: number;
  readonly #state: Int32Array;
  readonly #blocks: Uint32Array;
  readonly #tail = new Uint8Array(BLOCK_BYTES);
  readonly #tailView = new DataView(this.#tail.buffer);

  constructor(rows: number) {
    assert(littleEndian, 'content hashes are computed on little-endian machines only');
    this.rows = rows;
    this.#state = new Int32Array(rows * 4);
    this.#blocks = new Uint32Array(rows);
  }

  /** The same state, to go on from in another way. */
  copy(): RowHashes {
    const copy = new RowHashes(this.rows);
    copy.#state.set(this.#state);
    copy.#blocks.set(this.#blocks);
    return copy;
  }

  /** Mixes in each row's cell of one field; null cells leave their row as it is. Yields between slices of about 1 ms. */
  *mix(fieldId: number, column: Column): Generator<void, void> {
    assert(column.length === this.rows, `field ${fieldId}: ${column.length} rows, expected ${this.rows}`);
    const perRow = 2 * BLOCK_BYTES + Math.ceil(bytesOfCells(column) / Math.max(1, this.rows));
    const step = Math.max(1, Math.floor(SLICE_BYTES / perRow));
    const cells = this.#mixer(fieldId, column);
    for (let start = 0; start < this.rows; start += step) {
      cells(start, Math.min(this.rows, start + step));
      yield;
    }
  }

  /**
   * Sum modulo 2^128 of the hashes of all rows, or of those in the bitmap. A hash counts as the number whose little-endian bytes are Murmur3's 16.
   * The states are left as they are.
   */
  sum(rows?: Bitmap): RowSum {
    let total = 0n;
    let count = 0;
    const lanes = new Float64Array(4);
    const carry = (): void => {
      for (let lane = 3; lane >= 0; lane--) total += BigInt(lanes[lane]) << BigInt(32 * lane);
      lanes.fill(0);
    };
    for (let row = 0; row < this.rows; row++) {
      if (rows !== undefined && ((rows[row >> 3] >> (row & 7)) & 1) === 0) continue;
      this.#addRow(row, lanes);
      if (++count % EXACT_ADDS === 0) carry();
    }
    carry();
    return { rows: count, hash: BigInt.asUintN(128, total) };
  }

  #addRow(row: number, lanes: Float64Array): void {
    const bytes = Math.imul(this.#blocks[row], BLOCK_BYTES);
    let a = this.#state[row * 4] ^ bytes;
    let b = this.#state[row * 4 + 1] ^ bytes;
    let c = this.#state[row * 4 + 2] ^ bytes;
    let d = this.#state[row * 4 + 3] ^ bytes;
    a = (a + b + c + d) | 0;
    b = (b + a) | 0;
    c = (c + a) | 0;
    d = (d + a) | 0;
    a = finish(a);
    b = finish(b);
    c = finish(c);
    d = finish(d);
    a = (a + b + c + d) | 0;
    lanes[0] += a >>> 0;
    lanes[1] += (b + a) >>> 0;
    lanes[2] += (c + a) >>> 0;
    lanes[3] += (d + a) >>> 0;
  }

  /** Mixes the cells of rows [start, end). */
  #mixer(fieldId: number, column: Column): (start: number, end: number) => void {
    switch (column.kind) {
      case 'fixed':
        return this.#fixed(fieldId, column);
      case 'bytes':
        return column.type === DataType.Json ? this.#json(fieldId, column) : this.#bytes(fieldId, column);
      case 'vector':
        return this.#vectors(fieldId, column);
      case 'list':
        return this.#lists(fieldId, column);
    }
  }

  #fixed(fieldId: number, column: FixedColumn): (start: number, end: number) => void {
    // Row timestamps travel as doubles and are whole numbers: they hash as such, under the type of an int64.
    const whole = fieldId === TIMESTAMP_FIELD && column.values instanceof Float64Array ? column.values : undefined;
    const type = whole === undefined ? column.type : DataType.Int64;
    const words = whole === undefined ? wordsOfCells(column) : wordsOfWhole(whole);
    const { validity } = column;
    return (start, end) => {
      for (let row = start; row < end; row++)
        if (validity === null || isValid(validity, row)) this.#block(row, fieldId, type, words[row * 2], words[row * 2 + 1]);
    };
  }

  #bytes(fieldId: number, column: BytesColumn): (start: number, end: number) => void {
    const { offsets, data, type, validity } = column;
    const view = viewOf(data);
    return (start, end) => {
      for (let row = start; row < end; row++)
        if (validity === null || isValid(validity, row)) this.#cell(row, fieldId, type, view, offsets[row], offsets[row + 1]);
    };
  }

  #json(fieldId: number, column: BytesColumn): (start: number, end: number) => void {
    const { offsets, data, type, validity } = column;
    const buffer = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    return (start, end) => {
      for (let row = start; row < end; row++) {
        if (!isValid(validity, row)) continue;
        const text = canonicalJson(buffer, offsets[row], offsets[row + 1]);
        this.#cell(row, fieldId, type, viewOf(text), 0, text.byteLength);
      }
    };
  }

  #vectors(fieldId: number, column: VectorColumn): (start: number, end: number) => void {
    const { bytesPerRow, type, validity, data } = column;
    const lanes = MurmurLanes.takes(bytesPerRow) ? MurmurLanes.here : undefined;
    if (lanes)
      return (start, end) => {
        lanes.mix({ data, bytesPerRow, fieldId, type, validity }, this.#state, start, end);
        const blocks = 1 + bytesPerRow / BLOCK_BYTES;
        for (let row = start; row < end; row++) if (validity === null || isValid(validity, row)) this.#blocks[row] += blocks;
      };
    const view = viewOf(data);
    return (start, end) => {
      for (let row = start; row < end; row++)
        if (validity === null || isValid(validity, row))
          this.#cell(row, fieldId, type, view, row * bytesPerRow, row * bytesPerRow + bytesPerRow);
    };
  }

  #lists(fieldId: number, column: ListColumn): (start: number, end: number) => void {
    const { offsets, type, validity } = column;
    const elements = elementBytes(column.child);
    return (start, end) => {
      for (let row = start; row < end; row++) {
        if (!isValid(validity, row)) continue;
        const bytes = elements(offsets[row], offsets[row + 1]);
        this.#cell(row, fieldId, type, viewOf(bytes), 0, bytes.byteLength);
      }
    };
  }

  /** A head block, then the content, filled up with zeros to whole blocks. */
  #cell(row: number, fieldId: number, type: number, view: DataView, start: number, end: number): void {
    const length = end - start;
    this.#block(row, fieldId, type, length, 0);
    const whole = start + (length & ~15);
    mixBlocks(this.#state, row * 4, view, start, whole);
    this.#blocks[row] += length >> 4;
    if (whole === end) return;
    this.#tail.fill(0);
    for (let at = whole; at < end; at++) this.#tail[at - whole] = view.getUint8(at);
    mixBlocks(this.#state, row * 4, this.#tailView, 0, BLOCK_BYTES);
    this.#blocks[row]++;
  }

  #block(row: number, k1: number, k2: number, k3: number, k4: number): void {
    mixBlock(this.#state, row * 4, k1, k2, k3, k4);
    this.#blocks[row]++;
  }
}

/** How many rows, and the sum of their hashes modulo 2^128. */
export interface RowSum {
  readonly rows: number;
  readonly hash: bigint;
}

/** 32 hex digits, as in records, manifests and metadata. */
export function formatHash(hash: bigint): string {
  return hash.toString(16).padStart(32, '0');
}

/** The number of 32 hex digits; ObjectDamaged for anything else. */
export function parseHash(text: string): bigint {
  if (!/^[0-9a-f]{32}$/.test(text)) throw new CairnError('ObjectDamaged', `'${text}' is no content hash of 32 hex digits`);
  return BigInt(`0x${text}`);
}

/** Sum modulo 2^128. */
export function addHashes(hashes: Iterable<bigint>): bigint {
  let sum = 0n;
  for (const hash of hashes) sum += hash;
  return BigInt.asUintN(128, sum);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function bytesOfCells(column: Column): number {
  if (column.kind === 'vector') return column.data.byteLength;
  if (column.kind === 'bytes') return column.offsets[column.length] - column.offsets[0];
  return column.kind === 'list' ? bytesOfCells(column.child) : 0;
}

/** Two words a row: integers as int64 by sign, doubles and floats by their bits. */
function wordsOfCells({ values, length }: FixedColumn): Int32Array {
  if (values instanceof BigInt64Array || values instanceof Float64Array)
    return new Int32Array(values.buffer, values.byteOffset, length * 2);
  const floats = values instanceof Float32Array;
  const from = floats ? new Int32Array(values.buffer, values.byteOffset, length) : values;
  const words = new Int32Array(length * 2);
  for (let row = 0; row < length; row++) {
    words[row * 2] = from[row];
    words[row * 2 + 1] = !floats && from[row] < 0 ? -1 : 0;
  }
  return words;
}

function wordsOfWhole(values: Float64Array): Int32Array {
  const words = new Int32Array(values.length * 2);
  for (let row = 0; row < values.length; row++) {
    words[row * 2] = values[row] % 2 ** 32;
    words[row * 2 + 1] = Math.floor(values[row] / 2 ** 32);
  }
  return words;
}

/** Bytes of list elements [start, end): their storage bytes back to back; texts with their length before each. */
function elementBytes(child: Column): (start: number, end: number) => Uint8Array {
  if (child.kind === 'list') throw new CairnError('Internal', 'a list of lists has no content hash');
  if (child.kind === 'vector') return (start, end) => child.data.subarray(start * child.bytesPerRow, end * child.bytesPerRow);
  if (child.kind === 'fixed') {
    const { values } = child;
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    return (start, end) => bytes.subarray(start * values.BYTES_PER_ELEMENT, end * values.BYTES_PER_ELEMENT);
  }
  const { offsets, data } = child;
  return (start, end) => {
    const out = new Uint8Array(4 * (end - start) + offsets[end] - offsets[start]);
    const view = viewOf(out);
    let at = 0;
    for (let i = start; i < end; i++) {
      view.setUint32(at, offsets[i + 1] - offsets[i], true);
      out.set(data.subarray(offsets[i], offsets[i + 1]), at + 4);
      at += 4 + offsets[i + 1] - offsets[i];
    }
    return out;
  };
}

/** Murmur3_x86_128 over whole blocks of bytes [from, to). */
function mixBlocks(state: Int32Array, s: number, view: DataView, from: number, to: number): void {
  let a = state[s];
  let b = state[s + 1];
  let c = state[s + 2];
  let d = state[s + 3];
  for (let at = from; at < to; at += BLOCK_BYTES) {
    let k = Math.imul(view.getInt32(at, true), C1);
    a ^= Math.imul((k << 15) | (k >>> 17), C2);
    a = (Math.imul((((a << 19) | (a >>> 13)) + b) | 0, 5) + 0x561ccd1b) | 0;
    k = Math.imul(view.getInt32(at + 4, true), C2);
    b ^= Math.imul((k << 16) | (k >>> 16), C3);
    b = (Math.imul((((b << 17) | (b >>> 15)) + c) | 0, 5) + 0x0bcaa747) | 0;
    k = Math.imul(view.getInt32(at + 8, true), C3);
    c ^= Math.imul((k << 17) | (k >>> 15), C4);
    c = (Math.imul((((c << 15) | (c >>> 17)) + d) | 0, 5) + 0x96cd1c35) | 0;
    k = Math.imul(view.getInt32(at + 12, true), C4);
    d ^= Math.imul((k << 18) | (k >>> 14), C1);
    d = (Math.imul((((d << 13) | (d >>> 19)) + a) | 0, 5) + 0x32ac3b17) | 0;
  }
  state[s] = a;
  state[s + 1] = b;
  state[s + 2] = c;
  state[s + 3] = d;
}

const scratch = new DataView(new ArrayBuffer(BLOCK_BYTES));

function mixBlock(state: Int32Array, s: number, k1: number, k2: number, k3: number, k4: number): void {
  scratch.setInt32(0, k1, true);
  scratch.setInt32(4, k2, true);
  scratch.setInt32(8, k3, true);
  scratch.setInt32(12, k4, true);
  mixBlocks(state, s, scratch, 0, BLOCK_BYTES);
}

/** Murmur3's last mix of one lane. */
function finish(lane: number): number {
  let h = Math.imul(lane ^ (lane >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
