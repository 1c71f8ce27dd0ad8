import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareKeyRows, findKeyRows, hashKeys, keyColumn, shardOf, sortOrder, takeColumn } from '../src/index.ts';

const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const anyKeys = fc.oneof(
  fc.array(fc.oneof(int64, fc.bigInt({ min: -3n, max: 3n })), { minLength: 1 }),
  fc.array(fc.string({ maxLength: 9 }), { minLength: 1 }),
);

describe('key hashes', () => {
  it('never change: shards of stored rows depend on them', () => {
    expect([...hashKeys(keyColumn([0n, 1n, -1n, 2n ** 62n]))]).toEqual([1669671676, 1392991556, 1651860712, 3145138138]);
    // Published test vectors of MurmurHash3 x86 32, seed 0.
    expect([...hashKeys(keyColumn(['', 'test', 'Hello, world!', 'The quick brown fox jumps over the lazy dog']))]).toEqual([
      0, 0xba6bd213, 0xc0363e43, 0x2e4ff723,
    ]);
  });

  it('of int64 keys are those of their 8 little-endian bytes, the sign bit among them', () => {
    fc.assert(
      fc.property(int64, (key) => {
        const bytes = new Uint8Array(BigInt64Array.of(key).buffer);
        const asBytes = { kind: 'bytes', type: 21, length: 1, offsets: Int32Array.of(0, 8), data: bytes, validity: null } as const;
        expect(hashKeys(keyColumn([key]))[0]).toBe(hashKeys(asBytes)[0]);
      }),
    );
  });

  it('spread over shards and never give a negative shard', () => {
    const counts = [0, 0, 0, 0];
    for (const hash of hashKeys(keyColumn(Array.from({ length: 4000 }, (_, i) => BigInt(i - 2000))))) counts[shardOf(hash, 4)]++;
    for (const count of counts) expect(count).toBeGreaterThan(850);
  });
});

describe('key order', () => {
  it('is by value for int64 and by UTF-8 bytes for text', () => {
    fc.assert(
      fc.property(anyKeys, (keys) => {
        const column = keyColumn(keys);
        for (let i = 1; i < keys.length; i++) {
          const [a, b] = [keys[i - 1], keys[i]];
          const expected =
            typeof a === 'string' || typeof b === 'string'
              ? Buffer.compare(Buffer.from(String(a)), Buffer.from(String(b)))
              : a < b
                ? -1
                : a > b
                  ? 1
                  : 0;
          expect(Math.sign(compareKeyRows(column, i - 1, column, i))).toBe(expected);
        }
      }),
    );
  });

  it('sorts by key, then timestamp, also over several runs', () => {
    const sorted = (keys: string[], ts: Float64Array): void => {
      const column = keyColumn(keys);
      const order = sortOrder(column, ts);
      expect(new Set(order).size).toBe(keys.length);
      for (let i = 1; i < order.length; i++) {
        const difference = compareKeyRows(column, order[i - 1], column, order[i]);
        expect(difference < 0 || (difference === 0 && ts[order[i - 1]] <= ts[order[i]])).toBe(true);
      }
    };
    fc.assert(
      fc.property(anyKeys, fc.infiniteStream(fc.nat(3)), (keys, numbers) => {
        sorted(
          keys as string[],
          Float64Array.from({ length: keys.length }, () => numbers.next().value),
        );
      }),
    );
    const many = Array.from({ length: 30_000 }, (_, i) => `key${(i * 7919) % 10_007}`);
    sorted(
      many,
      Float64Array.from(many, (_, i) => i % 5),
    );
  });

  it('finds exactly the rows of the keys', () => {
    fc.assert(
      fc.property(anyKeys, fc.infiniteStream(fc.nat()), (keys, numbers) => {
        const column = keyColumn(keys);
        const sorted = takeColumn(column, sortOrder(column, new Float64Array(keys.length)));
        const wanted = [0, 1, 2].map(() => keys[numbers.next().value % keys.length]);
        const probe = keyColumn([...wanted, typeof keys[0] === 'string' ? 'absent key!' : 77_777_777n] as string[]);
        const expected = Array.from({ length: sorted.length }, (_, row) => row).filter((row) =>
          wanted.some((_, i) => compareKeyRows(sorted, row, probe, i) === 0),
        );
        expect([...findKeyRows(sorted, probe)]).toEqual(expected);
      }),
    );
  });
});
