import { hasCode, type Runtime, SystemRuntime } from '@cairn/base';
import { RecordBatchReader } from 'apache-arrow';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Column,
  columnFromWire,
  columnToWire,
  concatColumns,
  decodeFrame,
  encodeFrame,
  encodeFrameInTurns,
  isValid,
  makeBatch,
  makeSchema,
  readArrowFile,
  readVectorLayout,
  sharedCopy,
  sliceColumn,
  takeColumn,
  valueAt,
  writeArrowFile,
} from '../src/index.ts';
import { anyColumn, field, readable } from '../src/testing.ts';

const valuesOf = (column: Column): unknown[] => Array.from({ length: column.length }, (_, row) => readable(valueAt(column, row)));

describe('columns of every type', () => {
  it('give back the values they were made from', () => {
    fc.assert(
      fc.property(anyColumn, ({ values, column }) => {
        expect(valuesOf(column)).toEqual(values.map(readable));
      }),
    );
  });

  it('take, slice, concatenate and share rows as a list of values would', () => {
    fc.assert(
      fc.property(anyColumn, fc.infiniteStream(fc.nat()), ({ values, column }, numbers) => {
        const list = values.map(readable);
        const rows = Int32Array.from({ length: list.length }, () => numbers.next().value % list.length);
        expect(valuesOf(takeColumn(column, rows))).toEqual(Array.from(rows, (row) => list[row]));
        const [start, end] = [numbers.next().value % (list.length + 1), numbers.next().value % (list.length + 1)].sort((a, b) => a - b);
        const slice = sliceColumn(column, start, end);
        expect(valuesOf(slice)).toEqual(list.slice(start, end));
        expect(valuesOf(concatColumns([slice, column, slice]))).toEqual([...list.slice(start, end), ...list, ...list.slice(start, end)]);
        expect(valuesOf(sharedCopy(slice))).toEqual(list.slice(start, end));
      }),
    );
  });

  it('survive the wire form that SDKs send and read', () => {
    fc.assert(
      fc.property(anyColumn, ({ field: of, values, column }) => {
        const back = columnFromWire(of, columnToWire(of, column), values.length);
        expect(valuesOf(back)).toEqual(values.map(readable));
      }),
    );
  });
});

describe('frames', () => {
  it('give back every type, slices too, at any alignment', () => {
    fc.assert(
      fc.property(fc.array(anyColumn, { minLength: 1, maxLength: 4 }), fc.nat(8), (samples, shift) => {
        const rows = Math.min(...samples.map((sample) => sample.values.length));
        const from = Math.min(rows, 1);
        const batch = makeBatch(samples.map((sample, i) => [i, sliceColumn(sample.column, from, rows)] as const));
        const frame = encodeFrame(batch);
        const moved = new Uint8Array(frame.byteLength + shift);
        moved.set(frame, shift);
        const back = decodeFrame(moved.subarray(shift));
        expect(back.length).toBe(rows - from);
        for (const [i, sample] of samples.entries()) {
          const column = back.columns.get(i);
          expect(column && valuesOf(column)).toEqual(sample.values.slice(from, rows).map(readable));
        }
      }),
    );
  });

  it('of a large batch are the same bytes when they are written in turns, and others have theirs meanwhile', async () => {
    const values = Float64Array.from({ length: 1_000_000 }, (_, i) => i / 3);
    const batch = makeBatch([[1, { kind: 'fixed', type: 11, length: values.length, values, validity: null }]]);
    // A clock that moves a millisecond at each look.
    let looks = 0;
    let turns = 0;
    const runtime = new SystemRuntime();
    const slow: Runtime = Object.assign(Object.create(runtime), {
      monotonic: () => ++looks,
      sleep: async () => {
        turns++;
      },
    });
    expect(Buffer.compare(await encodeFrameInTurns(batch, slow), encodeFrame(batch))).toBe(0);
    expect(turns).toBeGreaterThan(0);
  });

  it('decode aligned bytes without copying them', () => {
    const frame = encodeFrame(makeBatch([[1, { kind: 'fixed', type: 11, length: 2, values: Float64Array.of(1, 2), validity: null }]]));
    const column = decodeFrame(frame).columns.get(1);
    expect(column?.kind === 'fixed' && column.values.buffer).toBe(frame.buffer);
  });

  it('refuse random and damaged bytes with a CairnError', () => {
    const refused = (bytes: Uint8Array): void => {
      try {
        for (const column of decodeFrame(bytes).columns.values()) valuesOf(column);
      } catch (error) {
        if (!hasCode(error, 'InvalidParameter')) throw error;
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), refused));
    fc.assert(
      fc.property(anyColumn, fc.nat(), fc.nat(255), fc.boolean(), ({ column }, at, value, cut) => {
        const frame = encodeFrame(makeBatch([[7, column]]));
        frame[at % Math.min(frame.byteLength, 100)] = value;
        refused(cut ? frame.subarray(0, at % frame.byteLength) : frame);
      }),
      { numRuns: 500 },
    );
  });
});

describe('Arrow files', () => {
  const schema = makeSchema({
    name: 'c',
    description: '',
    fields: [field(5, { isPrimaryKey: true, name: 'pk' })],
    enableDynamicField: false,
    properties: {},
  });
  const join = (chunks: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(chunks));

  it('give back every type, described by the file itself', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyColumn, { minLength: 1, maxLength: 3 }), async (samples) => {
        const rows = Math.min(...samples.map((sample) => sample.values.length));
        const batch = makeBatch(samples.map((sample, i) => [100 + i, sliceColumn(sample.column, 0, rows)] as const));
        const back = readArrowFile(join(await writeArrowFile(batch, schema)));
        for (const [i, sample] of samples.entries()) {
          const column = back.columns.get(100 + i);
          expect(column?.type).toBe(sample.column.type);
          expect(column && valuesOf(column)).toEqual(sample.values.slice(0, rows).map(readable));
        }
      }),
      { numRuns: 200 },
    );
  });

  it('are read as the reader of the Arrow project reads them', async () => {
    await fc.assert(
      fc.asyncProperty(anyColumn, async ({ column }) => {
        const file = join(await writeArrowFile(makeBatch([[100, column]]), schema));
        const [theirs] = [...RecordBatchReader.from(file)];
        const ours = readArrowFile(file);
        expect(ours.length).toBe(theirs?.numRows);
        const vector = theirs?.getChildAt(0);
        for (let row = 0; row < ours.length; row++)
          expect(isValid(ours.columns.get(100)?.validity ?? null, row)).toBe(vector?.isValid(row));
        const values = ours.columns.get(100);
        if (values?.kind === 'fixed' && vector) {
          const data = vector.data[0]?.values;
          expect([...values.values]).toEqual([...data].slice(0, values.length));
        }
      }),
      { numRuns: 100 },
    );
  });

  it('with bytes changed or cut off give back columns or are refused, and nothing else', async () => {
    await fc.assert(
      fc.asyncProperty(anyColumn, fc.nat(), fc.nat(255), fc.boolean(), async ({ column }, place, value, cut) => {
        const file = join(await writeArrowFile(makeBatch([[100, column]]), schema));
        const at = place % file.length;
        file[at] = value;
        try {
          readArrowFile(cut ? file.slice(0, at) : file);
        } catch (error) {
          expect(error).toMatchObject({ codeName: 'ObjectDamaged' });
        }
      }),
      { numRuns: 500 },
    );
  });

  it('are read as views on their bytes, on shared memory too', async () => {
    const values = Float64Array.of(1, 2, 3);
    const file = join(await writeArrowFile(makeBatch([[1, { kind: 'fixed', type: 11, length: 3, values, validity: null }]]), schema));
    const shared = new Uint8Array(new SharedArrayBuffer(file.byteLength));
    shared.set(file);
    for (const bytes of [file, shared]) {
      const column = readArrowFile(bytes).columns.get(1);
      expect(column?.kind === 'fixed' && column.values.buffer === bytes.buffer).toBe(true);
    }
  });

  it('tell where single vectors lie', async () => {
    await fc.assert(
      fc.asyncProperty(
        anyColumn.filter(({ column }) => column.kind === 'vector'),
        async ({ column }) => {
          const file = join(await writeArrowFile(makeBatch([[100, column]]), schema));
          const layout = await readVectorLayout(async (offset, length) => file.slice(offset, offset + length), file.byteLength);
          if (column.kind !== 'vector') return;
          const data = file.subarray(layout.dataOffset, layout.dataOffset + layout.rows * layout.bytesPerRow);
          expect(Buffer.from(data).equals(Buffer.from(column.data))).toBe(true);
          expect(layout.validity === undefined).toBe(column.validity === null);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('are refused when they are something else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(() => readArrowFile(bytes)).toThrow('not a segment file');
      }),
    );
  });
});
