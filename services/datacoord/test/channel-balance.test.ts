import { keys } from '@cairn/catalog';
import { ChannelRecord, NodeRecord } from '@cairn/proto/cairn/meta';
import { afterEach, describe, expect, test } from 'vitest';
import { type BalancedNode, nextMove } from '../src/channel-balance.ts';
import { World } from './world.ts';

const node = (id: string, channels: string[], draining = false): BalancedNode => ({ id, draining, channels });
const none = new Set<string>();

describe('what moves next', () => {
  test('nothing while the nodes differ by less than two', () => {
    expect(nextMove([node('a', ['1', '2']), node('b', ['3'])], none, true)).toBeUndefined();
    expect(nextMove([node('a', ['1', '2', '3'])], none, true)).toBeUndefined();
  });

  test('one from the fullest, which brings the counts together in few moves', () => {
    const nodes = [node('a', ['1', '2', '3', '4', '5', '6']), node('b', ['7', '8']), node('c', [])];
    let moves = 0;
    for (let move = nextMove(nodes, none, true); move; move = nextMove(nodes, none, true)) {
      moves++;
      const [from, to] = [
        nodes.findIndex(({ id }) => id === move.from),
        nodes.reduce((best, { channels }, at) => (channels.length < nodes[best].channels.length ? at : best), 0),
      ];
      nodes[from] = node(
        nodes[from].id,
        nodes[from].channels.filter((channel) => channel !== move.channel),
      );
      nodes[to] = node(nodes[to].id, [...nodes[to].channels, move.channel]);
    }
    expect(nodes.map(({ channels }) => channels.length).sort()).toEqual([2, 3, 3]);
    expect(moves).toBe(3);
  });

  test('nothing is levelled before the nodes have settled, but a node that drains is emptied at once', () => {
    expect(nextMove([node('a', ['1', '2']), node('b', [])], none, false)).toBeUndefined();
    expect(nextMove([node('a', ['1'], true), node('b', ['2'])], none, false)).toEqual({ channel: '1', from: 'a' });
    expect(nextMove([node('a', ['1'], true), node('b', [], true)], none, true)).toBeUndefined();
  });

  test('a channel that is held stays', () => {
    expect(nextMove([node('a', ['1', '2', '3']), node('b', [])], new Set(['3', '2']), true)).toEqual({ channel: '1', from: 'a' });
    expect(nextMove([node('a', ['1'], true), node('b', [])], new Set(['1']), true)).toBeUndefined();
  });
});

describe('channels between living nodes', () => {
  let world: World;
  afterEach(() => world.stop());

  const owners = async (): Promise<string[]> => {
    const { entries } = await world.meta.range({ prefix: keys.channels });
    return entries.map(({ value }) => ChannelRecord.decode(value).nodeId).sort();
  };
  const drain = (id: string) => {
    const record = NodeRecord.fromPartial({ id, role: 'streaming', address: `inproc:${id}`, draining: true });
    return world.meta.txn({ then: [{ kind: 'put', key: keys.node('streaming', id), value: NodeRecord.encode(record).finish() }] });
  };
  /** One node that owns all. */
  async function alone(): Promise<void> {
    world = new World({ settings: { channels: 4, assignSettleMs: 0, balanceSettleMs: 50 } });
    await world.node('streaming', 's1');
    await world.coordinator('a');
    await world.until(async () => (await owners()).join() === 's1,s1,s1,s1', 's1 owns all');
  }

  test('a node that joins gets its part, and each channel that moves a raised epoch', async () => {
    await alone();
    await world.node('streaming', 's2');
    await world.until(async () => (await owners()).join() === 's1,s1,s2,s2', 'two and two');
    const { entries } = await world.meta.range({ prefix: keys.channels });
    const moved = entries.map(({ value }) => ChannelRecord.decode(value)).filter(({ nodeId }) => nodeId === 's2');
    expect(moved.map(({ epoch, address }) => `${epoch} ${address}`)).toEqual(['2 inproc:s2', '2 inproc:s2']);
    await world.runtime.sleep(200);
    expect(world.released.length).toBe(2);
  });

  test('a node that drains is emptied, and gets nothing back', async () => {
    await alone();
    await drain('s1');
    await world.node('streaming', 's2');
    await world.until(async () => (await owners()).join() === 's2,s2,s2,s2', 's2 owns all');
  });

  test('nothing moves while a barrier runs', async () => {
    await alone();
    const held = Promise.withResolvers<void>();
    world.onBarrier = () => held.promise;
    await world.createCollection('a', 'things', undefined, 4);
    const snapshot = world.client('a').createSnapshot({
      ...{ requestId: 'r', database: '', collection: 'things', name: 'snap', description: '', compactionProtectionSeconds: 0 },
    });
    await world.until(() => world.barriers.length === 4, 'barriers are asked for');
    await world.node('streaming', 's2');
    await world.runtime.sleep(300);
    expect(world.released).toEqual([]);
    held.resolve();
    await snapshot;
    await world.until(async () => (await owners()).join() === 's1,s1,s2,s2', 'two and two');
  });

  test('a node that refuses keeps its channel and is asked again', async () => {
    await alone();
    world.onRelease = async () => {
      if (world.released.length < 2) throw new Error('not now');
    };
    await world.node('streaming', 's2');
    await world.until(async () => (await owners()).join() === 's1,s1,s2,s2', 'two and two');
  });
});
