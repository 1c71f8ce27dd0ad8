import { SystemRuntime } from '@cairn/base';
import { type Column, type ColumnBatch, columnFromValues, DataType, keyColumn, makeBatch, numberColumn, takeBatch } from '@cairn/schema';
import { field, samples } from '@cairn/schema/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalJson } from '../src/canonical-json.ts';
import { addHashes, contentHash, formatHash, hashedColumns, parseHash, RowHashes } from '../src/index.ts';
import { MurmurLanes } from '../src/murmur-lanes.ts';
import { murmur3 } from './murmur3.ts';

const runtime = new SystemRuntime();
const pk = field(DataType.Int64, { id: 100, name: 'pk', isPrimaryKey: true });

/** Rows of every type with nulls, timestamps and a row id. */
function rowsOf(rows: number, seed: number): ColumnBatch {
  const columns = new Map<number, Column>([
    [0, numberColumn(Float64Array.from({ length: rows }, (_, i) => i + seed))],
    [1, numberColumn(Float64Array.from({ length: rows }, (_, i) => 2 ** 45 + i * 4099))],
    [
      100,
      columnFromValues(
        pk,
        Array.from({ length: rows }, (_, i) => BigInt(i * 7 - 50)),
      ),
    ],
  ]);
  for (const [i, [of, values]] of samples.entries()) {
    const one = { ...of, id: 101 + i, nullable: true };
    columns.set(101 + i, columnFromValues(one, fc.sample(fc.option(values, { nil: null, freq: 5 }), { numRuns: rows, seed: seed + i })));
  }
  return makeBatch(columns);
}

function pad(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((16 - (bytes.byteLength % 16)) % 16)]);
}

function head(fieldId: number, type: number, low: number, high: number): Buffer {
  const bytes = Buffer.alloc(16);
  for (const [i, word] of [fieldId, type, low, high].entries()) bytes.writeInt32LE(word | 0, i * 4);
  return bytes;
}

/** A cell as docs/format.md lays it down, by another road than the code's: the bytes of one row. */
function cellBytes(fieldId: number, column: Column, row: number): Buffer {
  if (column.validity !== null && ((column.validity[row >> 3] >> (row & 7)) & 1) === 0) return Buffer.alloc(0);
  const long = (bytes: Uint8Array) => Buffer.concat([head(fieldId, column.type, bytes.byteLength, 0), pad(bytes)]);
  if (column.kind === 'fixed') {
    const value = Buffer.alloc(8);
    const raw = column.values[row];
    if (fieldId === 1) value.writeBigInt64LE(BigInt(Number(raw)));
    else if (column.values instanceof Float32Array) value.writeFloatLE(Number(raw));
    else if (column.values instanceof Float64Array) value.writeDoubleLE(Number(raw));
    else value.writeBigInt64LE(BigInt(raw));
    return head(fieldId, fieldId === 1 ? DataType.Int64 : column.type, value.readInt32LE(0), value.readInt32LE(4));
  }
  if (column.kind === 'vector') return long(column.data.subarray(row * column.bytesPerRow, (row + 1) * column.bytesPerRow));
  const [start, end] = [column.offsets[row], column.offsets[row + 1]];
  if (column.kind === 'bytes') {
    const bytes = column.data.subarray(start, end);
    return long(column.type === DataType.Json ? canonicalJson(Buffer.from(bytes), 0, bytes.byteLength) : bytes);
  }
  const { child } = column;
  const elements: Uint8Array[] = [];
  for (let i = start; i < end; i++) {
    if (child.kind === 'fixed') elements.push(new Uint8Array(child.values.slice(i, i + 1).buffer));
    else if (child.kind === 'vector') elements.push(child.data.subarray(i * child.bytesPerRow, (i + 1) * child.bytesPerRow));
    else if (child.kind === 'bytes') {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(child.offsets[i + 1] - child.offsets[i]);
      elements.push(length, child.data.subarray(child.offsets[i], child.offsets[i + 1]));
    }
  }
  return long(Buffer.concat(elements));
}

function byRows(batch: ColumnBatch): string {
  const cells = hashedColumns(batch.columns);
  const rows = Array.from({ length: batch.length }, (_, row) =>
    murmur3(Buffer.concat(cells.map(([id, column]) => cellBytes(id, column, row)))),
  );
  return formatHash(addHashes(rows));
}

const withColumn = (batch: ColumnBatch, id: number, column: Column): ColumnBatch => ({
  ...batch,
  columns: new Map([...batch.columns, [id, column]]),
});

describe('content hash', () => {
  it('is the sum of Murmur3 128 over the canonical bytes of each row, for every type', async () => {
    expect(murmur3(Buffer.from('The quick brown fox jumps over the lazy dog'))).toBe(
      // As published: 2f1583c3 ecee2c67 5d7bf66c e5e91d2c, the lanes in order.
      0x2f1583c3n | (0xecee2c67n << 32n) | (0x5d7bf66cn << 64n) | (0xe5e91d2cn << 96n),
    );
    const batch = rowsOf(500, 3);
    expect(await contentHash(batch, runtime)).toBe(byRows(batch));
  });

  it('is the same for vectors of whole blocks, hashed four rows at once: any number of rows, any width, with and without nulls', async () => {
    expect(MurmurLanes.here).toBeDefined();
    const random = fc.sample(fc.infiniteStream(fc.integer({ min: 0, max: 255 })), { numRuns: 1, seed: 7 })[0];
    for (const [rows, dim] of [...[1, 2, 3, 4, 5, 9].map((count) => [count, 4] as const), [7, 12], [1031, 128], [3, 32_768]] as const) {
      const bytesPerRow = dim * 4;
      const data = new Uint8Array(rows * bytesPerRow);
      for (let i = 0; i < data.length; i++) data[i] = i < 4096 ? (random.next().value ?? 0) : data[i - 4096] ^ (i >> 5);
      for (const validity of [null, Uint8Array.from({ length: Math.ceil(rows / 8) }, (_, i) => 0b1011_0110 ^ i)]) {
        const vectors: Column = { kind: 'vector', type: DataType.FloatVector, length: rows, dim, bytesPerRow, data, validity };
        const batch = withColumn(rowsOf(rows, 11), 400, vectors);
        expect(await contentHash(batch, runtime), `${rows} rows of ${dim}`).toBe(byRows(batch));
      }
    }
  });

  it('does not depend on the order of rows, nor on how they are split', async () => {
    const batch = rowsOf(300, 5);
    const all = await contentHash(batch, runtime);
    const order = Int32Array.from({ length: 300 }, (_, i) => (i * 7) % 300);
    expect(await contentHash(takeBatch(batch, order), runtime)).toBe(all);
    const halves = [order.subarray(0, 113), order.subarray(113)].map((rows) => contentHash(takeBatch(batch, rows), runtime));
    expect(formatHash(addHashes((await Promise.all(halves)).map(parseHash)))).toBe(all);
  });

  it('counts equal rows: two of them do not cancel', async () => {
    const batch = rowsOf(1, 9);
    const twice = takeBatch(batch, Int32Array.of(0, 0));
    const one = parseHash(await contentHash(batch, runtime));
    expect(parseHash(await contentHash(twice, runtime))).toBe(BigInt.asUintN(128, 2n * one));
  });

  it('sees one changed value, a null made of it, and two values swapped between rows, in every field', async () => {
    const batch = rowsOf(64, 11);
    const before = await contentHash(batch, runtime);
    for (const [id, column] of batch.columns) {
      if (id === 0) continue;
      const one = takeBatch(
        batch,
        Int32Array.from({ length: 64 }, (_, i) => (i === 0 ? 1 : i === 1 ? 0 : i)),
      ).columns.get(id);
      if (one === undefined) throw new Error('no column');
      const swapped = withColumn(batch, id, one);
      const same = cellBytes(id, column, 0).equals(cellBytes(id, column, 1));
      if (!same) expect(await contentHash(swapped, runtime), `swap in field ${id}`).not.toBe(before);
      if (id < 101) continue;
      const bits = new Uint8Array(8).fill(0xff);
      if (column.validity !== null) bits.set(column.validity.subarray(0, 8));
      const byte = bits.findIndex((some) => some !== 0);
      bits[byte] &= bits[byte] - 1;
      expect(await contentHash(withColumn(batch, id, { ...column, validity: bits } as Column), runtime), `null in field ${id}`).not.toBe(
        before,
      );
    }
  });

  it('leaves out null cells: a nullable field added later changes nothing for the rows before it', async () => {
    const batch = rowsOf(40, 13);
    const added = columnFromValues(field(DataType.Int64, { id: 900, name: 'later', nullable: true }), new Array(40).fill(null));
    expect(await contentHash(withColumn(batch, 900, added), runtime)).toBe(await contentHash(batch, runtime));
  });

  it('does not take row ids and needs none', async () => {
    const batch = rowsOf(40, 15);
    const ids = numberColumn(Float64Array.from({ length: 40 }, () => 7));
    expect(await contentHash(withColumn(batch, 0, ids), runtime)).toBe(await contentHash(batch, runtime));
  });

  it('sums chosen rows only', async () => {
    const batch = rowsOf(40, 17);
    const hashes = new RowHashes(40);
    for (const [id, column] of hashedColumns(batch.columns)) for (const _ of hashes.mix(id, column));
    const bits = new Uint8Array(5).fill(0xff);
    bits[1] = 0b1011_1110;
    const rest = Int32Array.from(Array.from({ length: 40 }, (_, i) => i).filter((i) => i !== 8 && i !== 14));
    expect(hashes.sum(bits)).toEqual({ rows: 38, hash: parseHash(await contentHash(takeBatch(batch, rest), runtime)) });
  });

  it('keys of a segment: the hash of int64 keys differs in sign and in the high word', async () => {
    const hashOf = (key: bigint) => contentHash(makeBatch(new Map([[100, keyColumn([key])]])), runtime);
    const all = await Promise.all([1n, -1n, 1n << 32n, (1n << 63n) - 1n, -(1n << 63n)].map(hashOf));
    expect(new Set(all).size).toBe(5);
  });
});

describe('canonical JSON', () => {
  const canonical = (text: string) => Buffer.from(canonicalJson(Buffer.from(text), 0, Buffer.byteLength(text))).toString();

  it('is the same for the same value, however it is written', () => {
    expect(canonical('{ "b": [1.0, 2e2], "a": {"\\u0064": "\\u00e9", "c": null} }')).toBe('{"a":{"c":null,"d":"é"},"b":[1,200]}');
    expect(canonical('{}')).toBe('{}');
  });

  it('keeps apart whole numbers that a double cannot hold', () => {
    expect(canonical('{"a":9007199254740993}')).toBe('{"a":9007199254740993}');
    expect(canonical('[9007199254740992,12345678901234567890123]')).toBe('[9007199254740992,12345678901234567890123]');
  });

  it('takes bytes that are no JSON as they are', () => expect(canonical('{oops')).toBe('{oops'));
});
