import { SystemRuntime } from '@cairn/base';
import { type QueryResult, type ShardQueryRequest, WriteRequest } from '@cairn/proto/cairn/services';
import { encodeQueryResult, executeQuery } from '@cairn/query';
import { columnFromValues, encodeFrame, keyColumn, makeBatch, type PlainValue, valueAt } from '@cairn/schema';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { callContext, DEFAULT_PARTITION, OTHER_PARTITION, SHARDS, World } from './world.ts';

const TAG = 101;
const VEC = 102;
const vector = (fill: number): Uint8Array => new Uint8Array(new Float32Array(32).fill(fill).buffer);

let world: World;
let requests = 0;
/** Called in the middle of each read. */
let duringRead: (read: number) => Promise<void>;
let reads: number;

/** Growing rows of the shard at what is applied; the read takes its rows first and answers late. */
async function query({ scope, plan }: ShardQueryRequest): Promise<QueryResult> {
  const shard = [...world.owner.shards].find((each) => each.vchannel === scope?.vchannel);
  if (!shard || !scope || !plan) throw new Error('no such shard');
  const readTs = world.owner.appliedTs;
  const parts = shard.parts().filter((part) => scope.partitionIds.length === 0 || scope.partitionIds.includes(part.partitionId));
  const segments = parts.map((part) => part.segment.capture(world.catalog.schema));
  const rows = await executeQuery({ segments, schema: world.catalog.schema, plan, readTs });
  await duringRead(++reads);
  return encodeQueryResult(rows, readTs, new SystemRuntime());
}

function partial(
  keys: readonly number[],
  fields: Record<number, readonly PlainValue[]>,
  options: { requestId?: string; partitionId?: number } = {},
): WriteRequest {
  const { schema } = world.catalog;
  const sent = Object.entries(fields).map(([id, values]) => {
    const field = schema.byId.get(Number(id));
    if (!field) throw new Error(`no field ${id}`);
    return [field.id, columnFromValues(field, values)] as const;
  });
  const ids = keyColumn(keys.map(BigInt));
  return WriteRequest.fromPartial({
    ...world.request(0, {}),
    requestId: options.requestId ?? `partial-${++requests}`,
    partial: {
      rows: keys.length,
      columns: encodeFrame(makeBatch([[100, ids], ...sent])),
      keys: encodeFrame(makeBatch([[100, ids]])),
      partitionId: options.partitionId ?? 0,
      defaultPartitionId: DEFAULT_PARTITION,
    },
  });
}

const write = (request: WriteRequest) => world.owner.write(request, callContext());

/** Visible rows of shard 0: key, tag, first number of the vector, partition. */
async function rows(): Promise<string[]> {
  const found: string[] = [];
  for (const shard of world.owner.shards) {
    if (shard.vchannel !== SHARDS[0]) continue;
    for (const { segment, partitionId } of shard.parts()) {
      const bits = segment.visible(world.owner.appliedTs);
      const [ids, tags, vecs] = [await segment.column(100), await segment.column(TAG), await segment.column(VEC)];
      for (let row = 0; row < segment.rows; row++) {
        if (bits && ((bits[row >> 3] ?? 0) & (1 << (row & 7))) === 0) continue;
        const first = new Float32Array((valueAt(vecs, row) as Uint8Array).slice().buffer)[0];
        found.push(`${valueAt(ids, row)} ${valueAt(tags, row)} ${first} ${partitionId}`);
      }
    }
  }
  return found.sort();
}

describe('partial updates in the owner of a shard', () => {
  beforeEach(async () => {
    world = new World();
    reads = 0;
    duringRead = async () => {};
    world.query = query;
    await world.create();
    await world.assign();
    await write(
      world.request(0, {
        rows: [
          { id: 1, tag: 'one' },
          { id: 2, tag: 'two' },
        ],
      }),
    );
    await write(world.request(0, { rows: [{ id: 3, tag: 'three' }], partition: OTHER_PARTITION }));
  });
  afterEach(() => world.stop());

  it('keep the fields that were not sent, and the partition', async () => {
    await write(partial([3, 1], { [TAG]: ['drei', 'eins'] }));
    expect(await rows()).toEqual([`1 eins 1 ${DEFAULT_PARTITION}`, `2 two 2 ${DEFAULT_PARTITION}`, `3 drei 3 ${OTHER_PARTITION}`]);
    await write(partial([1], { [VEC]: [vector(9)] }, { partitionId: OTHER_PARTITION }));
    expect(await rows()).toContain(`1 eins 9 ${OTHER_PARTITION}`);
    expect(await rows()).toHaveLength(3);
  });

  it('name the field that a new row lacks, and write nothing', async () => {
    await expect(write(partial([1, 77], { [TAG]: ['eins', 'new'] }))).rejects.toThrow(/field "vec".*key 77 is not stored/);
    expect(await rows()).toContain(`1 one 1 ${DEFAULT_PARTITION}`);
    await write(partial([77], { [TAG]: ['new'], [VEC]: [vector(7)] }));
    expect(await rows()).toContain(`77 new 7 ${DEFAULT_PARTITION}`);
  });

  it('of one key at once lose nothing of each other', async () => {
    duringRead = () => world.runtime.sleep(2);
    await Promise.all([
      write(partial([1, 2], { [TAG]: ['eins', 'zwei'] })),
      write(partial([2, 1], { [VEC]: [vector(22), vector(11)] })),
      write(partial([3], { [TAG]: ['drei'] })),
    ]);
    expect(await rows()).toEqual([`1 eins 11 ${DEFAULT_PARTITION}`, `2 zwei 22 ${DEFAULT_PARTITION}`, `3 drei 3 ${OTHER_PARTITION}`]);
  });

  it('read again when a whole write of the key came between', async () => {
    duringRead = async (read) => {
      if (read === 1) await write(world.request(0, { rows: [{ id: 1001, tag: 'other key' }], deletes: [1001] }));
      if (read === 2) await write(world.request(0, { rows: [{ id: 1, tag: 'between' }], deletes: [1] }));
    };
    await write(partial([1], { [VEC]: [vector(5)] }));
    expect(await rows()).toContain(`1 between 5 ${DEFAULT_PARTITION}`);
  });

  it('take a key for new when a delete of it came between', async () => {
    let deleted = false;
    duringRead = async () => {
      if (deleted) return;
      deleted = true;
      await write(world.request(0, { deletes: [2] }));
    };
    await expect(write(partial([2], { [TAG]: ['zwei'] }))).rejects.toThrow(/key 2 is not stored/);
    expect(await rows()).toHaveLength(2);
  });

  it('see a write that was stamped before them and is still on its way to the log', async () => {
    world.walFaults = (call) => ({ kind: 'none', delayMs: call.operation === 'append' ? 20 : 0 });
    const first = write(world.request(0, { rows: [{ id: 2, tag: 'on its way' }], deletes: [2] }));
    await world.runtime.sleep(5);
    const second = write(partial([2], { [VEC]: [vector(4)] }));
    await Promise.all([first, second]);
    expect(await rows()).toContain(`2 on its way 4 ${DEFAULT_PARTITION}`);
  });

  it('stand in the log as whole rows: another owner replays them without a read and answers a repeat', async () => {
    const request = partial([1], { [TAG]: ['eins'] }, { requestId: 'again' });
    const answer = await write(request);
    const before = await rows();
    world.query = async () => {
      throw new Error('a replay must not read');
    };
    await world.assign();
    expect(await world.writeUntilDone(request)).toEqual(answer);
    expect(await rows()).toEqual(before);
  });

  it('end retriably when every read is made stale', async () => {
    let tag = 0;
    duringRead = async () => {
      await write(world.request(0, { rows: [{ id: 1, tag: `t${++tag}` }], deletes: [1] }));
    };
    await expect(write(partial([1], { [VEC]: [vector(5)] }))).rejects.toMatchObject({ codeName: 'TooManyRequests', retriable: true });
  });
});
