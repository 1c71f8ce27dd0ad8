import { CairnError, hasCode, silentLogger } from '@cairn/base';
import { type SimulatedRuntime, Simulation } from '@cairn/base/simulation';
import { describe, expect, test } from 'vitest';
import {
  type ChannelWriter,
  DeposedError,
  decodeRecord,
  MAX_IN_FLIGHT,
  MemoryWalStore,
  openChannelWriter,
  type WalRecord,
} from '../src/index.ts';
import { FaultyWalStore, type WalCall, type WalFault } from '../src/testing.ts';
import { bytesOf, logger, payloads, runtime, textOf } from './wal-contract.ts';

const RUNS = 300;
const VIRTUAL_LIMIT_MS = 10 * 60_000;
const CALLS = 60;

/** A bad day: appends are late, lost, unanswered or overtake each other; reads fail. */
function badDay(simulation: Simulation, trouble: number): (call: WalCall) => WalFault {
  return (call) => {
    const delayMs = simulation.below(4);
    const dice = simulation.random();
    if (dice >= trouble) return simulation.random() < 0.7 ? { kind: 'none', delayMs: 1 } : { kind: 'none', delayMs };
    if (call.operation === 'read' || call.operation === 'state') return { kind: 'lost', delayMs };
    if (dice < trouble / 3) return { kind: 'lost', delayMs };
    return dice < (2 * trouble) / 3 ? { kind: 'written but unanswered', delayMs } : { kind: 'late', lateMs: simulation.below(60) };
  };
}

interface Owner {
  readonly epoch: number;
  readonly writer: ChannelWriter;
  /** payload -> sequence it was acknowledged at */
  readonly acknowledged: Map<string, number>;
  readonly replayed: string[];
}

async function own(store: FaultyWalStore, local: SimulatedRuntime, simulation: Simulation, epoch: number): Promise<Owner> {
  const writer = await openChannelWriter(store, 'c', epoch, {
    runtime: local,
    logger: silentLogger,
    maxInFlight: 1 + simulation.below(MAX_IN_FLIGHT),
  });
  const replayed: string[] = [];
  for await (const batch of writer.replay(1)) replayed.push(...batch.flatMap((r) => (r.kind === 'data' ? [textOf(r.payload)] : [])));
  return { epoch, writer, acknowledged: new Map(), replayed };
}

async function write(owner: Owner, local: SimulatedRuntime, simulation: Simulation): Promise<void> {
  const pending: Promise<void>[] = [];
  for (let call = 0; call < CALLS; call++) {
    const texts = Array.from({ length: 1 + simulation.below(3) }, (_, i) => `${owner.epoch}/${call}.${i}`);
    const entries = texts.map((text) => ({ subject: simulation.random() < 0.3 ? 'del.a' : 'ins.a', payload: bytesOf(text) }));
    pending.push(
      owner.writer.append(entries).then(
        (last) => {
          for (const [i, text] of texts.entries()) owner.acknowledged.set(text, last - texts.length + 1 + i);
        },
        (error: unknown) => {
          if (!(error instanceof DeposedError) && !hasCode(error, 'ChannelNotAvailable')) throw error;
        },
      ),
    );
    if (simulation.random() < 0.4) await local.sleep(simulation.below(5));
  }
  await Promise.all(pending);
  await owner.writer.drain();
}

async function run(seed: number): Promise<void> {
  const simulation = new Simulation(seed);
  const inner = new MemoryWalStore();
  await inner.ensureChannel('c');
  const trouble = simulation.random() * 0.35;
  const owners: Owner[] = [];
  const followed: WalRecord[] = [];
  const stop = new AbortController();
  const following = (async () => {
    for await (const batch of inner.follow('c', { from: 1, subject: 'del.a', signal: stop.signal }))
      followed.push(...batch.map((r) => decodeRecord('c', r)));
  })();

  const scenario = async (): Promise<void> => {
    const writing: Promise<void>[] = [];
    const count = 1 + simulation.below(4);
    for (let epoch = 1; epoch <= count; epoch++) {
      const local = simulation.instance(`owner ${epoch}`);
      const owner = await own(new FaultyWalStore(inner, local, badDay(simulation, trouble)), local, simulation, epoch);
      owners.push(owner);
      writing.push(write(owner, local, simulation));
      await local.sleep(simulation.below(120));
      if (epoch < count && simulation.random() < 0.2) owner.writer.close();
    }
    await Promise.all(writing);
    // Whatever is late has arrived by then.
    await simulation.instance('end').sleep(500);
  };
  await simulation.run(scenario(), VIRTUAL_LIMIT_MS);
  stop.abort();
  await following;

  const log: WalRecord[] = [];
  for await (const batch of inner.read('c', { from: 1 })) log.push(...batch.map((r) => decodeRecord('c', r)));
  const where = new Map<string, number>();
  let epoch = 0;
  let index = 0;
  for (const record of log) {
    expect(record.epoch, `seed ${seed}: a record of a deposed owner behind a fence, at ${record.sequence}`).toBeGreaterThanOrEqual(epoch);
    if (record.epoch > epoch) {
      epoch = record.epoch;
      index = 0;
    }
    if (record.kind === 'fence') continue;
    expect(record.index, `seed ${seed}: order of epoch ${epoch} at ${record.sequence}`).toBe(++index);
    const text = textOf(record.payload);
    expect(where.has(text), `seed ${seed}: ${text} is there twice`).toBe(false);
    where.set(text, record.sequence);
  }
  for (const owner of owners) {
    for (const [text, sequence] of owner.acknowledged) expect(where.get(text), `seed ${seed}: acknowledged ${text}`).toBe(sequence);
    const before = [...where].filter(([, sequence]) => sequence < owner.writer.fenceSequence).map(([text]) => text);
    expect(owner.replayed, `seed ${seed}: replay of epoch ${owner.epoch}`).toEqual(before);
  }
  const last = owners.at(-1);
  expect(last?.writer.deposed.aborted, `seed ${seed}: the last owner is deposed`).toBe(false);
  expect(last?.acknowledged.size, `seed ${seed}: the last owner's writes`).toBe(
    [...where.keys()].filter((text) => text.startsWith(`${last?.epoch}/`)).length,
  );
  expect(last?.acknowledged.size).toBeGreaterThanOrEqual(CALLS);
  const deletes = log.filter((record) => record.kind === 'data' && record.subject === 'del.a').map((record) => record.sequence);
  expect(
    followed.map((record) => record.sequence),
    `seed ${seed}: follower`,
  ).toEqual(deletes);
}

describe('ChannelWriter', () => {
  test(`over ${RUNS} seeded bad days: acknowledged is exactly once in replay, order is kept, nothing lands behind a fence`, async () => {
    for (let seed = 0; seed < RUNS; seed++) await run(seed);
  }, 120_000);

  test('an append whose record would not fit is refused before anything of its call is written', async () => {
    const store = new MemoryWalStore({ maxRecordBytes: 100 });
    await store.ensureChannel('c');
    const writer = await openChannelWriter(store, 'c', 1, { runtime, logger });
    const entry = (bytes: number) => ({ subject: 'a', payload: new Uint8Array(bytes) });
    await expect(writer.append([entry(1), entry(writer.maxPayloadBytes + 1)])).rejects.toMatchObject({ codeName: 'ParameterTooLarge' });
    expect(await writer.append([entry(writer.maxPayloadBytes)])).toBe(writer.fenceSequence + 1);
  });

  test('more than wal.maxQueuedBytes waiting is refused, what waits is written', async () => {
    const store = new MemoryWalStore();
    await store.ensureChannel('c');
    const slow = new FaultyWalStore(store, runtime, () => ({ kind: 'none', delayMs: 20 }));
    const writer = await openChannelWriter(slow, 'c', 1, { runtime, logger, maxQueuedBytes: 100 });
    const first = writer.append([{ subject: 'a', payload: bytesOf('x'.repeat(60)) }]);
    await expect(writer.append([{ subject: 'a', payload: bytesOf('y'.repeat(60)) }])).rejects.toMatchObject({
      codeName: 'TooManyRequests',
    });
    await first;
    expect(await payloads(store, 'c')).toEqual(['x'.repeat(60)]);
  });

  test('a store that is down keeps appends waiting in doubt, and they are written when it is back', async () => {
    const store = new MemoryWalStore();
    await store.ensureChannel('c');
    let down = false;
    const faulty = new FaultyWalStore(store, runtime, () => (down ? { kind: 'lost' } : { kind: 'none' }));
    const writer = await openChannelWriter(faulty, 'c', 1, { runtime, logger });
    down = true;
    const append = writer.append([{ subject: 'a', payload: bytesOf('x') }]);
    await runtime.sleep(50);
    expect(writer.inDoubt).toBe(true);
    down = false;
    expect(await append).toBe(writer.fenceSequence + 1);
    expect(writer.inDoubt).toBe(false);
  });

  test('a take-over that waits for the store ends with its signal', async () => {
    const store = new MemoryWalStore();
    await store.ensureChannel('c');
    const faulty = new FaultyWalStore(store, runtime, () => ({ kind: 'lost' }));
    const stop = new AbortController();
    const opening = openChannelWriter(faulty, 'c', 1, { runtime, logger, signal: stop.signal });
    await runtime.sleep(20);
    stop.abort();
    await expect(opening).rejects.toMatchObject({ codeName: 'Cancelled' });
  });

  test('an append that the store refuses for good ends the ownership with the reason', async () => {
    const store = new MemoryWalStore();
    await store.ensureChannel('c');
    const error = new CairnError('DiskLimit', 'the disk is full');
    const faulty = new FaultyWalStore(store, runtime, (call) =>
      call.operation === 'append' ? { kind: 'refused', error } : { kind: 'none' },
    );
    const writer = await openChannelWriter(faulty, 'c', 1, { runtime, logger });
    await expect(writer.append([{ subject: 'a', payload: bytesOf('x') }])).rejects.toThrow('the disk is full');
    expect(writer.deposed.aborted).toBe(true);
  });
});
