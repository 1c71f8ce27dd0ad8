import { createLogger, SystemRuntime } from '@cairn/base';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ChannelWriter } from '../src/index.ts';
import {
  DeposedError,
  decodeRecord,
  encodeRecord,
  FENCE_RECORDS,
  MAX_IN_FLIGHT,
  openChannelWriter,
  type StoredRecord,
  TrimmedError,
  type WalStore,
  WrongTailError,
} from '../src/index.ts';
import { FaultyWalStore, type WalFault } from '../src/testing.ts';

export interface WalUnderTest {
  open(): Promise<WalStore>;
  /** Whether records outlive `close`. */
  readonly durable: boolean;
  stop(): Promise<void>;
}

export const runtime = new SystemRuntime();
export const logger = createLogger({ level: 'silent' });
const options = { runtime, logger };

export const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
export const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

export async function readAll(store: WalStore, channel: string, from = 1, to?: number, subjects?: string[]): Promise<StoredRecord[]> {
  const all: StoredRecord[] = [];
  for await (const batch of store.read(channel, { from, ...(to === undefined ? {} : { to }), ...(subjects ? { subjects } : {}) }))
    all.push(...batch);
  return all;
}

/** Payloads of the data records, decoded. */
export async function payloads(store: WalStore, channel: string): Promise<string[]> {
  return (await readAll(store, channel))
    .map((stored) => decodeRecord(channel, stored))
    .flatMap((record) => (record.kind === 'data' ? [textOf(record.payload)] : []));
}

async function follow(store: WalStore, channel: string, from: number, subject: string, count: number): Promise<StoredRecord[]> {
  const stop = new AbortController();
  const seen: StoredRecord[] = [];
  for await (const batch of store.follow(channel, { from, subject, signal: stop.signal })) {
    seen.push(...batch);
    if (seen.length >= count) stop.abort();
  }
  return seen;
}

/** The promises of WalStore and of the ChannelWriter above it, the same for every tenant. */
export function describeWal(name: string, start: () => Promise<WalUnderTest>): void {
  describe(name, () => {
    let under: WalUnderTest;
    let store: WalStore;
    let count = 0;

    const freshChannel = async (): Promise<string> => {
      const channel = `c${count++}`;
      await store.ensureChannel(channel);
      return channel;
    };
    const fill = async (channel: string, records: number, subjectOf: (n: number) => string = () => 'ins.a'): Promise<void> => {
      const { lastSequence } = await store.state(channel);
      for (let at = 0; at < records; ) {
        const burst = Math.min(FENCE_RECORDS, MAX_IN_FLIGHT, records - at);
        await Promise.all(
          Array.from({ length: burst }, (_, i) =>
            store.append(channel, subjectOf(lastSequence + at + i + 1), bytesOf(`r${lastSequence + at + i + 1}`), lastSequence + at + i),
          ),
        );
        at += burst;
      }
    };
    const data = (...texts: string[]): { subject: string; payload: Uint8Array }[] =>
      texts.map((text) => ({ subject: 'ins.a', payload: bytesOf(text) }));

    beforeAll(async () => {
      under = await start();
      store = await under.open();
    }, 60_000);
    afterAll(async () => {
      await store.close();
      await under.stop();
    }, 60_000);

    test('a channel is made once, listed, and deleted with its records', async () => {
      const channel = await freshChannel();
      await store.ensureChannel(channel);
      expect(await store.state(channel)).toEqual({ firstSequence: 1, lastSequence: 0 });
      await fill(channel, 3);
      expect(await store.listChannels()).toContain(channel);
      await store.deleteChannel(channel);
      expect(await store.listChannels()).not.toContain(channel);
      await expect(store.state(channel)).rejects.toMatchObject({ codeName: 'ChannelNotFound' });
      await store.ensureChannel(channel);
      expect(await store.state(channel)).toEqual({ firstSequence: 1, lastSequence: 0 });
      expect(await readAll(store, channel)).toEqual([]);
    });

    test('names that are not names are refused', async () => {
      await expect(store.ensureChannel('a.b')).rejects.toMatchObject({ codeName: 'InvalidParameter' });
      const channel = await freshChannel();
      await expect(store.append(channel, 'a b', bytesOf('x'), 0)).rejects.toMatchObject({ codeName: 'InvalidParameter' });
      await expect(store.append(channel, '*', bytesOf('x'), 0)).rejects.toMatchObject({ codeName: 'InvalidParameter' });
    });

    test('sequences start at 1, have no holes, and are shared by all subjects', async () => {
      const channel = await freshChannel();
      expect(await store.append(channel, 'ins.a', bytesOf('1'), 0)).toBe(1);
      expect(await store.append(channel, 'del.a', bytesOf('2'), 1)).toBe(2);
      expect(await store.append(channel, 'ins.b', bytesOf('3'), 2)).toBe(3);
      const all = await readAll(store, channel);
      expect(all.map((r) => [r.sequence, r.subject, textOf(r.bytes)])).toEqual([
        [1, 'ins.a', '1'],
        [2, 'del.a', '2'],
        [3, 'ins.b', '3'],
      ]);
    });

    test('an append with a wrong tail is refused and writes nothing', async () => {
      const channel = await freshChannel();
      await store.append(channel, 'a', bytesOf('1'), 0);
      await expect(store.append(channel, 'a', bytesOf('x'), 0)).rejects.toBeInstanceOf(WrongTailError);
      await expect(store.append(channel, 'a', bytesOf('x'), 2)).rejects.toBeInstanceOf(WrongTailError);
      expect((await readAll(store, channel)).map((r) => textOf(r.bytes))).toEqual(['1']);
    });

    test('appends with consecutive expectations may be in flight together and keep their order', async () => {
      const channel = await freshChannel();
      const got = await Promise.all(Array.from({ length: MAX_IN_FLIGHT }, (_, i) => store.append(channel, 'a', bytesOf(`${i}`), i)));
      expect(got).toEqual(Array.from({ length: MAX_IN_FLIGHT }, (_, i) => i + 1));
      expect((await readAll(store, channel)).map((r) => textOf(r.bytes))).toEqual(Array.from({ length: MAX_IN_FLIGHT }, (_, i) => `${i}`));
    });

    test('the failure of a pipelined append fails those behind it', async () => {
      const channel = await freshChannel();
      const results = await Promise.allSettled(
        [0, 5, 6, 7].map((expected) => store.append(channel, 'a', bytesOf(`${expected}`), expected)),
      );
      expect(results.map((r) => r.status)).toEqual(['fulfilled', 'rejected', 'rejected', 'rejected']);
      expect((await store.state(channel)).lastSequence).toBe(1);
    });

    test('a record as large as the limit is kept whole, a larger one is refused', async () => {
      const channel = await freshChannel();
      const large = new Uint8Array(store.maxRecordBytes).fill(7);
      expect(await store.append(channel, 'a', large, 0)).toBe(1);
      await expect(store.append(channel, 'a', new Uint8Array(store.maxRecordBytes + 1), 1)).rejects.toMatchObject({
        codeName: 'ParameterTooLarge',
      });
      const [record] = await readAll(store, channel);
      expect(Buffer.compare(record.bytes, large)).toBe(0);
    });

    test('an append that has resolved is readable, and all before it, large records too', async () => {
      const channel = await freshChannel();
      const large = new Uint8Array(300 << 10);
      await Promise.all(
        Array.from({ length: 40 }, async (_, i) => {
          const sequence = await store.append(channel, 'a', i % 3 === 0 ? large : bytesOf('small'), i);
          expect((await store.state(channel)).lastSequence).toBeGreaterThanOrEqual(sequence);
        }),
      );
      expect((await store.state(channel)).lastSequence).toBe(40);
      expect((await readAll(store, channel)).length).toBe(40);
    });

    test('reads from a position, up to another, of some subjects', async () => {
      const channel = await freshChannel();
      await fill(channel, 1500, (n) => (n % 3 === 0 ? 'del.a' : n % 3 === 1 ? 'ins.a' : 'ins.b'));
      expect((await readAll(store, channel, 701, 1300)).map((r) => r.sequence)).toEqual(Array.from({ length: 600 }, (_, i) => 701 + i));
      expect((await readAll(store, channel, 1499)).map((r) => r.sequence)).toEqual([1499, 1500]);
      expect((await readAll(store, channel, 10, 20, ['del.a'])).map((r) => r.sequence)).toEqual([12, 15, 18]);
      expect((await readAll(store, channel, 10, 20, ['del.a', 'ins.b'])).map((r) => r.sequence)).toEqual([11, 12, 14, 15, 17, 18, 20]);
      expect(await readAll(store, channel, 1501)).toEqual([]);
    });

    test('follows a subject from the middle, across many records and on as they come, each once and in order', async () => {
      const channel = await freshChannel();
      await fill(channel, 900, (n) => (n % 2 === 0 ? 'del.a' : 'ins.a'));
      const following = follow(store, channel, 301, 'del.a', 500);
      await fill(channel, 400, (n) => (n % 2 === 0 ? 'del.a' : 'ins.a'));
      const seen = await following;
      expect(seen.map((r) => r.sequence)).toEqual(Array.from({ length: 500 }, (_, i) => 302 + 2 * i));
      expect(seen.every((r) => r.subject === 'del.a' && textOf(r.bytes) === `r${r.sequence}`)).toBe(true);
    });

    test('a follower of an empty channel gets the first record; abort ends it quietly', async () => {
      const channel = await freshChannel();
      const following = follow(store, channel, 1, 'a', 1);
      await runtime.sleep(50);
      await store.append(channel, 'a', bytesOf('hello'), 0);
      expect((await following).map((r) => textOf(r.bytes))).toEqual(['hello']);
      const stop = new AbortController();
      const idle = (async () => {
        for await (const _ of store.follow(channel, { from: 2, subject: 'a', signal: stop.signal })) return 'a batch';
        return 'ended';
      })();
      await runtime.sleep(50);
      stop.abort();
      expect(await idle).toBe('ended');
    });

    test('trim forgets only what is before the position, and keeps the last record', async () => {
      const channel = await freshChannel();
      await fill(channel, 1200);
      await store.trim(channel, 701);
      expect(await store.state(channel)).toEqual({ firstSequence: 701, lastSequence: 1200 });
      expect((await readAll(store, channel, 701)).length).toBe(500);
      await expect(readAll(store, channel, 700)).rejects.toBeInstanceOf(TrimmedError);
      await store.trim(channel, 5000);
      expect(await store.state(channel)).toEqual({ firstSequence: 1200, lastSequence: 1200 });
      await store.trim(channel, 10);
      expect(await store.append(channel, 'a', bytesOf('on'), 1200)).toBe(1201);
    });

    test('a follower whose start was trimmed is told so and skips nothing', async () => {
      const channel = await freshChannel();
      await fill(channel, 100);
      await store.trim(channel, 51);
      await expect(follow(store, channel, 50, 'ins.a', 1)).rejects.toBeInstanceOf(TrimmedError);
      expect((await follow(store, channel, 51, 'ins.a', 50)).map((r) => r.sequence)).toEqual(Array.from({ length: 50 }, (_, i) => 51 + i));
    });

    test('records and sequences outlive a restart of the process', async () => {
      if (!under.durable) return;
      const channel = await freshChannel();
      const other = await freshChannel();
      await fill(channel, 70);
      await store.trim(channel, 31);
      await store.close();
      store = await under.open();
      expect(await store.state(channel)).toEqual({ firstSequence: 31, lastSequence: 70 });
      expect(await store.state(other)).toEqual({ firstSequence: 1, lastSequence: 0 });
      expect((await readAll(store, channel, 31)).length).toBe(40);
      expect(await store.append(channel, 'a', bytesOf('on'), 70)).toBe(71);
    });

    describe('ChannelWriter', () => {
      const open = (over: WalStore, channel: string, epoch: number): Promise<ChannelWriter> =>
        openChannelWriter(over, channel, epoch, options);

      test('an owner replays what stands before its fence, then its own records follow', async () => {
        const channel = await freshChannel();
        const first = await open(store, channel, 1);
        expect(await first.append(data('a', 'b'))).toBe(first.fenceSequence + 2);
        const second = await open(store, channel, 2);
        const replayed: string[] = [];
        for await (const batch of second.replay(1))
          for (const record of batch)
            if (record.kind === 'data') replayed.push(`${record.epoch}.${record.index} ${textOf(record.payload)}`);
        expect(replayed).toEqual(['1.1 a', '1.2 b']);
        expect(await second.append(data('c'))).toBe(second.fenceSequence + 1);
        expect(second.lastSequence).toBe(second.fenceSequence + 1);
        expect(await payloads(store, channel)).toEqual(['a', 'b', 'c']);
      });

      test("a deposed owner's appends fail and none of them is written", async () => {
        const channel = await freshChannel();
        const first = await open(store, channel, 1);
        await first.append(data('a'));
        const second = await open(store, channel, 2);
        const results = await Promise.allSettled([first.append(data('x')), first.append(data('y'))]);
        for (const result of results) expect(result.status === 'rejected' && result.reason).toBeInstanceOf(DeposedError);
        expect(first.deposed.aborted).toBe(true);
        await expect(first.append(data('z'))).rejects.toBeInstanceOf(DeposedError);
        await second.append(data('b'));
        expect(await payloads(store, channel)).toEqual(['a', 'b']);
      });

      test('what a deposed owner had in flight lands nowhere behind the fence, however the arrivals fall', async () => {
        const channel = await freshChannel();
        const first = await open(store, channel, 1);
        await first.append(data('a'));
        const tail = first.lastSequence;
        const second = await open(store, channel, 2);
        const late = Array.from({ length: MAX_IN_FLIGHT }, (_, i) =>
          store.append(channel, 'ins.a', encodeRecord('data', 1, i + 2, bytesOf('x')), tail + i),
        );
        for (const result of await Promise.allSettled(late)) expect(result.status).toBe('rejected');
        await second.append(data('b'));
        expect(await payloads(store, channel)).toEqual(['a', 'b']);
      });

      test('a new epoch alone deposes nobody: a quiet old owner with the right tail appends until the fence stands', async () => {
        const channel = await freshChannel();
        const first = await open(store, channel, 1);
        await first.append(data('a'));
        // Epoch 2 was given out, its owner has not written its fence yet.
        await first.append(data('b'));
        expect(first.deposed.aborted).toBe(false);
        const second = await open(store, channel, 2);
        await expect(first.append(data('x'))).rejects.toBeInstanceOf(DeposedError);
        expect(second.fenceSequence).toBeGreaterThan(first.lastSequence);
        expect(await payloads(store, channel)).toEqual(['a', 'b']);
      });

      test('an epoch that the log knows already takes nothing over', async () => {
        const channel = await freshChannel();
        await open(store, channel, 5);
        await expect(open(store, channel, 5)).rejects.toBeInstanceOf(DeposedError);
        await expect(open(store, channel, 4)).rejects.toBeInstanceOf(DeposedError);
        await store.trim(channel, 1_000_000);
        await expect(open(store, channel, 5)).rejects.toBeInstanceOf(DeposedError);
      });

      test('an append with an unknown outcome that was written counts as written, and is there once', async () => {
        const channel = await freshChannel();
        const faults: WalFault[] = [
          { kind: 'none' },
          { kind: 'written but unanswered' },
          { kind: 'lost' },
          { kind: 'lost' },
          { kind: 'none' },
        ];
        const faulty = new FaultyWalStore(store, runtime, (call) =>
          call.operation === 'append' ? (faults.shift() ?? { kind: 'none' }) : { kind: 'none' },
        );
        const writer = await open(faulty, channel, 1);
        const sequences = await Promise.all(['a', 'b', 'c', 'd', 'e', 'f'].map((text) => writer.append(data(text))));
        expect(sequences).toEqual([1, 2, 3, 4, 5, 6].map((n) => writer.fenceSequence + n));
        expect(await payloads(store, channel)).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
        expect(writer.inDoubt).toBe(false);
      });

      test('a fence whose first try succeeded without an answer is found, not written twice', async () => {
        const channel = await freshChannel();
        await (await open(store, channel, 1)).append(data('a'));
        let fences = 0;
        const faulty = new FaultyWalStore(store, runtime, (call) =>
          call.operation === 'appendFence' && fences++ === 0 ? { kind: 'written but unanswered' } : { kind: 'none' },
        );
        const second = await open(faulty, channel, 2);
        expect((await readAll(store, channel)).map((stored) => decodeRecord(channel, stored)).filter((r) => r.epoch === 2).length).toBe(
          FENCE_RECORDS,
        );
        expect(second.fenceSequence).toBe((await store.state(channel)).lastSequence);
        expect(await second.append(data('b'))).toBe(second.fenceSequence + 1);
      });

      test('a fence is retried with a new tail while the old owner still writes', async () => {
        const channel = await freshChannel();
        const first = await open(store, channel, 1);
        let races = 3;
        const faulty = new FaultyWalStore(store, runtime);
        faulty.appendFence = async (...call: Parameters<WalStore['appendFence']>) => {
          if (races-- > 0) await first.append(data(`race ${races}`));
          return store.appendFence(...call);
        };
        const second = await open(faulty, channel, 2);
        expect(await payloads(store, channel)).toEqual(['race 2', 'race 1', 'race 0']);
        expect(second.fenceSequence).toBe((await store.state(channel)).lastSequence);
      });

      test('entries of one append are contiguous among concurrent appends', async () => {
        const channel = await freshChannel();
        const writer = await open(store, channel, 1);
        await Promise.all(Array.from({ length: 40 }, (_, i) => writer.append(data(...Array.from({ length: 5 }, (_, j) => `${i}.${j}`)))));
        await writer.drain();
        expect(await payloads(store, channel)).toEqual(Array.from({ length: 200 }, (_, n) => `${Math.floor(n / 5)}.${n % 5}`));
      });

      test('a damaged record is an error that names channel and sequence', async () => {
        const channel = await freshChannel();
        const writer = await open(store, channel, 1);
        await writer.append(data('a'));
        const bad = encodeRecord('data', 1, 2, bytesOf('hello'));
        bad[bad.length - 1] ^= 1;
        const at = await store.append(channel, 'ins.a', bad, writer.lastSequence);
        const next = await open(new FaultyWalStore(store, runtime), channel, 2).catch((error: unknown) => error);
        expect(next).toMatchObject({ codeName: 'ObjectDamaged', message: expect.stringContaining(`${channel}: record ${at}`) });
      });
    });
  });
}
