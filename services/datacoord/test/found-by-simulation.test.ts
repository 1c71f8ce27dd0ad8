/** What seeds of the simulation found in the coordinator, each as the smallest story that shows it. */
import { CairnError, silentLogger } from '@cairn/base';
import { Simulation } from '@cairn/base/simulation';
import { keys } from '@cairn/catalog';
import { createElection, MemoryMetaStore, type MetaStore } from '@cairn/meta';
import { ChannelRecord, NodeRecord } from '@cairn/proto/cairn/meta';
import { InProcessNetwork } from '@cairn/rpc';
import { MemoryWalStore } from '@cairn/wal';
import { expect, test } from 'vitest';
import { ChannelAssigner } from '../src/channel-assigner.ts';
import { LeaderStore } from '../src/leader-store.ts';
import { NodeDirectory } from '../src/node-directory.ts';
import { TimestampOracle } from '../src/timestamp-oracle.ts';

/** A leader over a memory store; `between` may stand between it and the store. */
async function lead(simulation: Simulation, between: (store: MetaStore) => MetaStore = (store) => store) {
  const runtime = simulation.instance('leader');
  const meta = new MemoryMetaStore(runtime);
  const stop = new AbortController();
  const leadership = await createElection(meta, runtime, keys.leader, 3_000).campaign(Buffer.from('me'), stop.signal);
  const store = new LeaderStore(between(meta), leadership, runtime, silentLogger, stop.signal, () => undefined);
  return { runtime, meta, leadership, store, stop };
}

function simulated(work: (simulation: Simulation) => Promise<void>): () => Promise<void> {
  return () => {
    const simulation = new Simulation(1);
    return simulation.run(work(simulation), 60_000);
  };
}

test(
  'a try that was given up and comes late does not bring back what was deleted since',
  simulated(async (simulation) => {
    const late: (() => Promise<unknown>)[] = [];
    let losing = false;
    const { store, meta } = await lead(simulation, (inner) => ({
      get: (key) => inner.get(key),
      range: (options) => inner.range(options),
      watch: (prefix, signal) => inner.watch(prefix, signal),
      grantLease: (ttlMs) => inner.grantLease(ttlMs),
      ping: () => inner.ping(),
      close: () => inner.close(),
      txn: async (txn) => {
        if (!losing) return inner.txn(txn);
        losing = false;
        late.push(() => inner.txn(txn));
        // The store does not answer; the transaction is on its way.
        throw new CairnError('StoreUnavailable', 'no answer');
      },
    }));
    await store.mustCommit({ puts: [{ key: 'other', value: Buffer.from('1') }] });
    losing = true;
    await store.mustCommit({ puts: [{ key: 'some/1', value: Buffer.from('1') }] });
    await store.mustCommit({ deletes: ['some/1'] });
    for (const land of late) await land();
    expect(late).toHaveLength(1);
    expect(await meta.get('some/1')).toBeUndefined();
  }),
);

test(
  'a try that was given up and comes right after the one that answered: what is known is what is stored',
  simulated(async (simulation) => {
    let lost: (() => Promise<unknown>) | undefined;
    let losing = false;
    const { store, meta } = await lead(simulation, (inner) => ({
      get: (key) => inner.get(key),
      range: (options) => inner.range(options),
      watch: (prefix, signal) => inner.watch(prefix, signal),
      grantLease: (ttlMs) => inner.grantLease(ttlMs),
      ping: () => inner.ping(),
      close: () => inner.close(),
      txn: async (txn) => {
        if (losing) {
          losing = false;
          lost = () => inner.txn(txn);
          throw new CairnError('StoreUnavailable', 'no answer');
        }
        const answer = await inner.txn(txn);
        await lost?.();
        lost = undefined;
        return answer;
      },
    }));
    await store.mustCommit({ puts: [{ key: 'other', value: Buffer.from('1') }] });
    losing = true;
    const revision = await store.mustCommit({ puts: [{ key: 'some/1', value: Buffer.from('1') }] });
    expect((await meta.get('some/1'))?.modRevision).toBe(revision);
  }),
);

test(
  'the oracle goes on after it had nothing to save',
  simulated(async (simulation) => {
    const { store, leadership, runtime } = await lead(simulation);
    const oracle = new TimestampOracle(store, leadership, runtime, silentLogger);
    await oracle.load();
    const { limit, put } = oracle.firstLimit();
    await store.mustCommit({ puts: [put] });
    oracle.start(limit);
    // The clock goes back: the limit stands, what was given out comes near it, and a tick finds that the limit need not grow.
    runtime.jump(-10_000);
    let last = await oracle.allocate(1);
    for (let i = 0; i < 40; i++) {
      await runtime.sleep(250);
      const next = await oracle.allocate(400_000);
      expect(next).toBeGreaterThan(last);
      last = next;
    }
    oracle.stop();
  }),
);

test(
  'a channel whose owner came back under its id may go to another node',
  simulated(async (simulation) => {
    const { store, meta, runtime, stop } = await lead(simulation);
    const put = (key: string, value: Uint8Array) => meta.txn({ then: [{ kind: 'put', key, value }] });
    const node = (id: string) =>
      put(keys.node('streaming', id), NodeRecord.encode(NodeRecord.fromPartial({ id, role: 'streaming', address: id })).finish());
    for (const channel of ['dml_0', 'dml_1'])
      await put(
        keys.channel(channel),
        ChannelRecord.encode({ channel, epoch: 1, nodeId: 'a', address: 'a', releasedSequence: 0 }).finish(),
      );
    await node('a');
    await node('b');
    const nodes = new NodeDirectory(meta, runtime, silentLogger, stop.signal);
    await nodes.start();
    const limits = { channels: 2, assignSettleMs: 0, balanceSettleMs: 5_000 };
    const network = new InProcessNetwork(runtime);
    const assigner = new ChannelAssigner(store, new MemoryWalStore(), nodes, network, limits, runtime, silentLogger, stop.signal);
    await assigner.start();
    await runtime.sleep(2_000);
    expect(
      assigner
        .records()
        .map(({ nodeId, epoch }) => `${nodeId} ${epoch}`)
        .sort(),
    ).toEqual(['a 2', 'b 2']);
    stop.abort();
  }),
);
