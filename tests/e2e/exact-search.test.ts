/**
 * Searches through the wire against exact arithmetic, for every vector type under every metric: half of the rows flushed, half in memory, over two
 * shards, some deleted, some written twice. Where scores tie, any order of the keys is right: lists of scores are compared, and each key with its own.
 */
import { SystemRuntime } from '@cairn/base';
import { MilvusServiceDefinition, SearchRequest } from '@cairn/proto/milvus/milvus';
import { type Client, GrpcTransport } from '@cairn/rpc';
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';
import { COLLECTIONS, type Sent, type VectorCase } from '../support/exact-vectors.ts';
import { seeded } from '../support/workload.ts';

const ROWS = 640;
const FLUSHED = 360;
const GROUPS = 9;
const QUERIES = [10_001, 10_002, 10_003];

let server: Standalone;
let sdk: MilvusClient;
let transport: GrpcTransport;
let milvus: Client<MilvusServiceDefinition>;

interface Row {
  readonly id: number;
  readonly part: number;
  readonly name: string;
  readonly maybe: number | null;
  /** Number of its vectors: rows that were written again have others. */
  readonly vector: number;
}

const scalarsOf = (id: number): Pick<Row, 'part' | 'name' | 'maybe'> => ({
  part: (id * id) % GROUPS,
  name: `n${(id * 37) % 101}`,
  maybe: id % 4 === 0 ? null : id % 7,
});

/** The last version of each row that is there. */
const rows: readonly Row[] = Array.from({ length: ROWS }, (_, id) => ({
  id,
  ...scalarsOf(id),
  vector: id % 10 === 3 ? id + 5000 : id,
})).filter(({ id }) => id % 11 !== 5);

beforeAll(async () => {
  server = await startStandalone();
  sdk = new MilvusClient({ address: server.address, timeout: 30_000 });
  transport = new GrpcTransport(new SystemRuntime());
  milvus = transport.client(MilvusServiceDefinition, server.address);
  await Promise.all(Object.keys(COLLECTIONS).map(fill));
}, 120_000);
afterAll(async () => {
  await sdk.closeConnection();
  await transport.close();
  await stopChecked(server);
});

const asSent = (id: number, vector: number, cases: readonly VectorCase[]): Record<string, unknown> => ({
  ...{ id, ...scalarsOf(id) },
  ...Object.fromEntries(cases.map((one) => [one.field, one.vector(vector)])),
});

async function fill(name: string): Promise<void> {
  const cases = COLLECTIONS[name];
  const created = await sdk.createCollection({
    collection_name: name,
    // The answers of one shard take a shorter way through the proxy.
    shards_num: name === 'angles' ? 1 : 2,
    consistency_level: 'Strong',
    fields: [
      { name: 'id', data_type: DataType.Int64, is_primary_key: true },
      { name: 'part', data_type: DataType.Int32 },
      { name: 'maybe', data_type: DataType.Int8, nullable: true },
      { name: 'name', data_type: DataType.VarChar, max_length: 10 },
      ...cases.map(({ field, type, dim }) => ({ name: field, data_type: type, ...(dim ? { dim } : {}) })),
    ],
    index_params: cases.map(({ field, index, metric }) => ({ field_name: field, index_type: index, metric_type: metric, params: {} })),
  } as never);
  expect(created.error_code, created.reason).toBe('Success');
  const insert = async (from: number, to: number): Promise<void> => {
    const data = Array.from({ length: to - from }, (_, i) => asSent(from + i, from + i, cases));
    const { status } = await sdk.insert({ collection_name: name, data: data as never });
    expect(status.error_code, status.reason).toBe('Success');
  };
  await insert(0, FLUSHED);
  await sdk.flushSync({ collection_names: [name] });
  await insert(FLUSHED, ROWS);
  const again = rows.filter(({ id, vector }) => id !== vector).map(({ id, vector }) => asSent(id, vector, cases));
  const { status } = await sdk.upsert({ collection_name: name, data: again as never });
  expect(status.error_code, status.reason).toBe('Success');
  const deleted = await sdk.delete({ collection_name: name, filter: 'id % 11 == 5' });
  expect(deleted.status.error_code, deleted.status.reason).toBe('Success');
}

interface Hit {
  readonly id: number;
  readonly score: number;
  readonly part: number;
  readonly name: string;
  readonly maybe: number | null;
}

/** Every row that is a hit, best first, ties by key. */
function ranked(one: VectorCase, query: Sent, keep: (row: Row) => boolean = () => true): Hit[] {
  const scored = rows.filter(keep).map((row) => ({ ...row, score: one.score(query, one.vector(row.vector)) }));
  return bestFirst(
    one,
    scored.filter((hit): hit is typeof hit & Hit => hit.score !== undefined),
  );
}

function bestFirst(one: VectorCase, hits: readonly Hit[]): Hit[] {
  const sign = one.metric === 'IP' || one.metric === 'COSINE' ? -1 : 1;
  return [...hits].sort((a, b) => sign * (a.score - b.score) || a.id - b.id);
}

async function search(collection: string, one: VectorCase, queries: readonly Sent[], more: Record<string, unknown>): Promise<Hit[][]> {
  const reply = await sdk.search({
    ...{ collection_name: collection, anns_field: one.field, data: queries, output_fields: ['id', 'part', 'name'], limit: 20 },
    ...more,
  } as never);
  expect(reply.status.error_code, reply.status.reason).toBe('Success');
  const lists = reply.results as unknown as Hit[] | Hit[][];
  return ((Array.isArray(lists[0]) ? lists : [lists]) as Hit[][]).map((list) => list.map((hit) => ({ ...hit, id: Number(hit.id) })));
}

const near = (one: VectorCase, score: number): number => one.tolerance * Math.max(1, Math.abs(score));

/** The same scores in the same order, and each key with the score that is its own. */
function expectHits(one: VectorCase, found: readonly Hit[], wanted: readonly Hit[], all: readonly Hit[]): void {
  expect(found.length).toBe(wanted.length);
  const own = new Map(all.map((hit) => [hit.id, hit.score]));
  found.forEach(({ id, score }, i) => {
    expect(own.has(id), `row ${id} is no hit`).toBe(true);
    expect(Math.abs(score - (own.get(id) ?? 0)), `score ${score} of row ${id}, exactly ${own.get(id)}`).toBeLessThanOrEqual(
      near(one, score),
    );
    expect(Math.abs(score - wanted[i].score), `score ${score} at place ${i}, exactly ${wanted[i].score}`).toBeLessThanOrEqual(
      near(one, score),
    );
  });
  expect(new Set(found.map(({ id }) => id)).size).toBe(found.length);
}

for (const [collection, cases] of Object.entries(COLLECTIONS))
  describe.each(cases.map((one) => [one.field, one] as const))('%s', (_, one) => {
    const queries = QUERIES.map((n) => one.vector(n));
    const descending = one.metric === 'IP' || one.metric === 'COSINE';

    test.each([
      ['all rows', '', () => true],
      ['half of them', 'part < 4', (row: Row) => row.part < 4],
      ['few of them', 'name == "n7" or id in [1, 2, 3]', (row: Row) => row.name === 'n7' || [1, 2, 3].includes(row.id)],
      ['none', 'id < 0', () => false],
    ] as const)('the best of %s', async (_kind, filter, keep) => {
      const found = await search(collection, one, queries, { filter });
      queries.forEach((query, i) => {
        const all = ranked(one, query, keep);
        expectHits(one, found[i] ?? [], all.slice(0, 20), all);
      });
    });

    test('every row, and the rows behind an offset', async () => {
      const [query] = queries;
      const all = ranked(one, query);
      const [found] = await search(collection, one, [query], { limit: 1000 });
      expectHits(one, found, all, all);
      const [page] = await search(collection, one, [query], { limit: 15, offset: 30 });
      expectHits(one, page, all.slice(30, 45), all);
      const [behind] = await search(collection, one, [query], { limit: 10, offset: all.length });
      expect(behind ?? []).toEqual([]);
    });

    test('a range: beyond the radius none, none better than the range filter', async () => {
      const [query] = queries;
      const all = ranked(one, query);
      // Between scores of neighbours, so that rounding decides nothing.
      const between = (at: number): number => {
        let i = at;
        while (Math.abs(all[i].score - all[i + 1].score) <= 4 * near(one, all[i].score)) i++;
        return (all[i].score + all[i + 1].score) / 2;
      };
      const [outer, inner] = [between(Math.floor(all.length / 3)), between(4)];
      const beyond = (score: number, bound: number): boolean => (descending ? score <= bound : score >= bound);
      const open = all.filter(({ score }) => !beyond(score, outer));
      const closed = open.filter(({ score }) => beyond(score, inner));
      const [within] = await search(collection, one, [query], { limit: 1000, params: { radius: outer } });
      expectHits(one, within, open, all);
      const [ring] = await search(collection, one, [query], { limit: 1000, params: { radius: outer, range_filter: inner } });
      expectHits(one, ring, closed, all);
      const [best] = await search(collection, one, [query], { limit: 7, params: { radius: outer, range_filter: inner } });
      expectHits(one, best, closed.slice(0, 7), all);
    });

    test('the bounds of a range: the radius itself is out, the range filter itself is in', async () => {
      const [query] = queries;
      const [found] = await search(collection, one, [query], { limit: 40 });
      const [inner, outer] = [found[5].score, found[30].score];
      const [ring] = await search(collection, one, [query], { limit: 1000, params: { radius: outer, range_filter: inner } });
      const wanted = found.filter(({ score }) => (descending ? score <= inner && score > outer : score >= inner && score < outer));
      expect(ring.map(({ score }) => score)).toEqual(wanted.map(({ score }) => score));
      expect(new Set(ring.map(({ id }) => id))).toEqual(new Set(wanted.map(({ id }) => id)));
    });

    test.each(['part', 'maybe', 'name'] as const)('grouped by %s: the groups of the best rows, with their best rows', async (by) => {
      const all = ranked(one, queries[0]);
      const grouped = Map.groupBy(all, (hit) => hit[by]);
      const chosen = (limit: number): Hit[][] => [...grouped.values()].slice(0, limit);
      const run = async (limit: number, more = {}): Promise<Hit[]> => {
        const output_fields = ['id', 'part', 'maybe', 'name'];
        const [found] = await search(collection, one, [queries[0]], { limit, group_by_field: by, output_fields, ...more });
        return found;
      };
      expectHits(
        one,
        await run(4),
        chosen(4).map(([first]) => first),
        all,
      );
      expectHits(
        one,
        await run(130),
        chosen(130).map(([first]) => first),
        all,
      );
      const strict = {
        limit: 3,
        group_by_field: by,
        group_size: 4,
        strict_group_size: true,
        output_fields: ['id', 'part', 'maybe', 'name'],
      };
      const lists = await search(collection, one, queries, strict);
      queries.forEach((query, i) => {
        const hits = ranked(one, query);
        const groups = [...Map.groupBy(hits, (hit) => hit[by]).values()].slice(0, 3);
        expectHits(
          one,
          lists[i],
          bestFirst(
            one,
            groups.flatMap((group) => group.slice(0, 4)),
          ),
          hits,
        );
      });
      const loose = await run(3, { group_size: 4 });
      expect(new Set(loose.map((hit) => hit[by]))).toEqual(new Set(chosen(3).map(([first]) => first[by])));
      for (const group of Map.groupBy(loose, (hit) => hit[by]).values()) expect(group.length).toBeLessThanOrEqual(4);
    });

    test('the best in the order of a field, and scores to so many digits', async () => {
      const all = ranked(one, queries[1]);
      const [best] = await search(collection, one, [queries[1]], { limit: 25 });
      const [ordered] = await search(collection, one, [queries[1]], { limit: 25, order_by_fields: [{ field: 'name', order: 'desc' }] });
      expect(ordered.map(({ id }) => id).sort((a, b) => a - b)).toEqual(best.map(({ id }) => id).sort((a, b) => a - b));
      expect(ordered.map(({ name }) => name)).toEqual(best.map(({ name }) => name).sort((a, b) => (a < b ? 1 : a > b ? -1 : 0)));
      expectHits(one, best, all.slice(0, 25), all);
      // By the bare contract: the SDK rounds on its own too.
      const scores = async (digits: number): Promise<number[]> => {
        const searchParams = Object.entries({ anns_field: one.field, topk: '25', round_decimal: String(digits) });
        const reply = await milvus.search(
          SearchRequest.fromPartial({
            collectionName: collection,
            searchInput: { $case: 'ids', value: { idField: { $case: 'intId', value: { data: [BigInt(rows[8].id)] } } } },
            searchParams: searchParams.map(([key, value]) => ({ key, value })),
          }),
        );
        expect(reply.status?.reason).toBe('');
        return reply.results?.scores ?? [];
      };
      const exact = await scores(-1);
      expect(exact.length).toBe(25);
      for (const digits of [0, 2])
        expect(await scores(digits)).toEqual(exact.map((score) => Math.fround(Math.floor(score * 10 ** digits + 0.5) / 10 ** digits)));
    });

    test('by the vectors of rows that are named', async () => {
      const named = [rows[3], rows[rows.length - 2]];
      const found = await search(collection, one, queries, { data: undefined, ids: named.map(({ id }) => id), limit: 12 });
      named.forEach(({ vector }, i) => {
        const all = ranked(one, one.vector(vector));
        expectHits(one, found[i], all.slice(0, 12), all);
      });
    });

    test('page by page: every row once, in order, as they were at the first page', async () => {
      const [query] = queries;
      const all = ranked(one, query);
      const iterator = await sdk.searchIterator({
        ...{ collection_name: collection, anns_field: one.field, data: query, batchSize: 37, output_fields: ['id'], limit: -1 },
      } as never);
      const found: Hit[] = [];
      let page = 0;
      for await (const batch of iterator) {
        for (const { id, score } of batch as unknown as Hit[]) found.push({ id: Number(id), score, part: 0, name: '', maybe: null });
        // Neither rows that come nor rows that go are seen by the pages to come.
        if (page === 1) {
          const { status } = await sdk.insert({ collection_name: collection, data: [asSent(100_000, 10_001, cases)] as never });
          expect(status.error_code, status.reason).toBe('Success');
          await sdk.delete({ collection_name: collection, filter: `id == ${all[all.length - 1].id}` });
        }
        page++;
      }
      expectHits(one, found, all, all);
      expect(page).toBeGreaterThan(2);
      // As it was before, for the tests that come.
      await sdk.delete({ collection_name: collection, filter: 'id == 100000' });
      const last = rows.find(({ id }) => id === all[all.length - 1].id) as Row;
      const { status } = await sdk.insert({ collection_name: collection, data: [asSent(last.id, last.vector, cases)] as never });
      expect(status.error_code, status.reason).toBe('Success');
    });
  });

describe('hybrid search', () => {
  const named = (name: string): VectorCase =>
    Object.values(COLLECTIONS)
      .flat()
      .find(({ field }) => field === name) as VectorCase;
  const queryOf = (one: VectorCase, n: number): Sent => one.vector(n);

  /** Scores of the rows that some part found among its best `limit`: what `gain` gives for each, added up. */
  function fused(
    parts: readonly { readonly one: VectorCase; readonly query: Sent; readonly filter?: (row: Row) => boolean }[],
    limit: number,
    gain: (part: number, rank: number, score: number) => number,
    smallIsBest = false,
  ): Hit[] {
    const sums = new Map<number, Hit>();
    parts.forEach(({ one, query, filter }, part) => {
      ranked(one, query, filter)
        .slice(0, limit)
        .forEach((hit, rank) => {
          const score = (sums.get(hit.id)?.score ?? 0) + gain(part, rank, hit.score);
          sums.set(hit.id, { ...hit, score });
        });
    });
    return [...sums.values()].sort((a, b) => (smallIsBest ? a.score - b.score : b.score - a.score) || a.id - b.id);
  }

  const NORMALISED: Readonly<Record<string, (score: number) => number>> = {
    COSINE: (score) => (1 + score) / 2,
    IP: (score) => 0.5 + Math.atan(score) / Math.PI,
    L2: (score) => 1 - (2 * Math.atan(score)) / Math.PI,
    HAMMING: (score) => 1 - (2 * Math.atan(score)) / Math.PI,
    JACCARD: (score) => 1 - (2 * Math.atan(score)) / Math.PI,
  };

  async function hybrid(collection: string, fields: readonly VectorCase[], rerank: unknown, more: Record<string, unknown>): Promise<Hit[]> {
    const reply = await sdk.hybridSearch({
      collection_name: collection,
      data: fields.map((one) => ({ anns_field: one.field, data: queryOf(one, 10_009), limit: 50 })),
      rerank,
      output_fields: ['id'],
      limit: 20,
      ...more,
    } as never);
    expect(reply.status.error_code, reply.status.reason).toBe('Success');
    return (reply.results as unknown as Hit[]).map((hit) => ({ ...hit, id: Number(hit.id) }));
  }

  /** Fields without ties: where a row stands among its equals is nobody's promise, and a rank counts here. */
  test.each([
    ['distances', ['float_l2', 'f16_l2', 'int8_l2']],
    ['products', ['float_ip', 'bf16_ip']],
    ['angles', ['float_cosine', 'int8_cosine']],
  ])('of %s by reciprocal ranks', async (collection, fields) => {
    const cases = fields.map(named);
    const parts = cases.map((one) => ({ one, query: queryOf(one, 10_009) }));
    for (const [k, offset] of [
      [60, 0],
      [5, 7],
    ]) {
      const all = fused(parts, 50, (_, rank) => 1 / (k + rank + 1));
      const found = await hybrid(collection, cases, { strategy: 'rrf', params: { k } }, { offset });
      expect(found.map(({ score }) => score)).toEqual(all.slice(offset, offset + 20).map(({ score }) => expect.closeTo(score, 6)));
      const own = new Map(all.map((hit) => [hit.id, hit.score]));
      for (const { id, score } of found) expect(score).toBeCloseTo(own.get(id) ?? -1, 6);
    }
  });

  test.each([
    ['distances', ['float_l2', 'bits_hamming', 'int8_l2'], [0.2, 0.9, 1]],
    ['products', ['float_ip', 'sparse_ip', 'f16_ip'], [0.5, 0.25, 1]],
    ['angles', ['float_cosine', 'bits_jaccard'], [1, 0.3]],
  ])('of %s by weights, with scores made comparable and as they are', async (collection, fields, weights) => {
    const cases = fields.map(named);
    // Every row is in every part, so that ties at the end of one decide nothing.
    const parts = cases.map((one) => ({ one, query: queryOf(one, 10_009) }));
    for (const norm of [true, false]) {
      // Distances beside scores that grow with nearness are turned round; distances alone stay, and the smallest are the best.
      const turned = (part: number): boolean => norm || (collection === 'angles' && cases[part].metric === 'JACCARD');
      const gain = (part: number, _: number, score: number): number =>
        weights[part] * (turned(part) ? NORMALISED[cases[part].metric](score) : score);
      const all = fused(parts, 1000, gain, !norm && collection === 'distances');
      const own = new Map(all.map((hit) => [hit.id, hit.score]));
      const data = cases.map((one) => ({ anns_field: one.field, data: queryOf(one, 10_009), limit: 1000 }));
      const found = await hybrid(collection, cases, { strategy: 'weighted', params: { weights, norm_score: norm } }, { data });
      expect(found.length).toBe(20);
      found.forEach(({ id, score }, i) => {
        const tolerance = 1e-5 * Math.max(1, Math.abs(score));
        expect(Math.abs(score - (own.get(id) ?? Number.NaN)), `row ${id}`).toBeLessThanOrEqual(tolerance);
        expect(Math.abs(score - all[i].score), `place ${i}`).toBeLessThanOrEqual(tolerance);
      });
    }
  });

  test('of products by the functions rrf and weighted', async () => {
    const cases = [named('float_ip'), named('bf16_ip')];
    const parts = cases.map((one) => ({ one, query: queryOf(one, 10_009) }));
    const rerank = (params: Record<string, unknown>): unknown => ({ name: 'f', type: 'Rerank', input_field_names: [], params });
    const data = cases.map((one) => ({ anns_field: one.field, data: queryOf(one, 10_009), limit: 1000 }));
    for (const [params, gain] of [
      [{ reranker: 'rrf', k: 20 }, (_: number, rank: number) => 1 / (21 + rank)],
      [{ reranker: 'weighted', weights: [0.1, 0.8] }, (part: number, _: number, score: number) => [0.1, 0.8][part] * score],
      [
        { reranker: 'weighted', weights: [0.6, 0.7], norm_score: true },
        (part: number, _: number, score: number) => [0.6, 0.7][part] * NORMALISED['IP'](score),
      ],
    ] as const) {
      const all = fused(parts, 1000, gain);
      const found = await hybrid('products', cases, rerank(params), { data });
      expect(found.map(({ score }) => score)).toEqual(all.slice(0, 20).map(({ score }) => expect.closeTo(score, 4)));
    }
  });

  test('of distances by decay: the best of what the parts give a row, or their sum or mean, and then it fades', async () => {
    const cases = [named('float_l2'), named('int8_l2')];
    const parts = cases.map((one) => ({ one, query: queryOf(one, 10_009) }));
    const data = cases.map((one) => ({ anns_field: one.field, data: queryOf(one, 10_009), limit: 1000 }));
    const partOf = new Map(ranked(cases[0], queryOf(cases[0], 10_009)).map((hit) => [hit.id, hit.part]));
    for (const [mode, join] of [
      ['max', (scores: readonly number[]) => Math.max(...scores)],
      ['sum', (scores: readonly number[]) => scores[0] + scores[1]],
      ['avg', (scores: readonly number[]) => (scores[0] + scores[1]) / 2],
    ] as const) {
      const given = new Map<number, number[]>();
      for (const { one, query } of parts)
        for (const hit of ranked(one, query)) given.set(hit.id, [...(given.get(hit.id) ?? []), NORMALISED['L2'](hit.score)]);
      const all = [...given].map(([id, scores]) => join(scores) * 0.5 ** Math.abs((partOf.get(id) ?? 0) - 2)).sort((a, b) => b - a);
      const params = { reranker: 'decay', function: 'exp', origin: 2, scale: 1, score_mode: mode };
      const found = await hybrid('distances', cases, { name: 'f', type: 'Rerank', input_field_names: ['part'], params }, { data });
      expect(found.map(({ score }) => score)).toEqual(all.slice(0, 20).map((score) => expect.closeTo(score, 4)));
    }
  });

  test('each part with a filter of its own', async () => {
    const cases = [named('float_l2'), named('int8_l2')];
    const [even, odd] = [(row: Row) => row.id % 2 === 0, (row: Row) => row.part > 3];
    const all = fused(
      cases.map((one, i) => ({ one, query: queryOf(one, 10_009), filter: i === 0 ? even : odd })),
      50,
      (_, rank) => 1 / (61 + rank),
    );
    const data = cases.map((one, i) => ({
      ...{ anns_field: one.field, data: queryOf(one, 10_009), limit: 50, expr: i === 0 ? 'id % 2 == 0' : 'part > 3' },
    }));
    const found = await hybrid('distances', cases, { strategy: 'rrf', params: { k: 60 } }, { data });
    expect(found.map(({ score }) => score)).toEqual(all.slice(0, 20).map(({ score }) => expect.closeTo(score, 6)));
  });
});

describe('scores that fade with a field', () => {
  const byDistance: Readonly<Record<string, (distance: number, decay: number) => number>> = {
    gauss: (distance, decay) => Math.exp(Math.log(decay) * distance ** 2),
    exp: (distance, decay) => Math.exp(Math.log(decay) * distance),
    linear: (distance, decay) => Math.max(decay, 1 - (1 - decay) * distance),
  };
  test.each([
    ['products', 'float_ip', (score: number) => score],
    ['angles', 'float_cosine', (score: number) => score],
    ['distances', 'float_l2', (score: number) => 1 - (2 * Math.atan(score)) / Math.PI],
  ])('of %s: the best hits times what the distance leaves of them', async (collection, name, comparable) => {
    const one = COLLECTIONS[collection].find(({ field }) => field === name) as VectorCase;
    for (const [shape, curve] of Object.entries(byDistance)) {
      const rerank = {
        ...{ name: 'fade', type: 'Rerank', input_field_names: ['part'] },
        params: { reranker: 'decay', function: shape, origin: 3, scale: 2.5, offset: 1, decay: 0.4 },
      };
      const fade = (hit: Hit): number => comparable(hit.score) * curve(Math.max(0, Math.abs(hit.part - 3) - 1) / 2.5, 0.4);
      const wanted = ranked(one, one.vector(10_001))
        .slice(0, 40)
        .map((hit) => ({ ...hit, score: fade(hit) }))
        .sort((a, b) => b.score - a.score || a.id - b.id);
      const [found] = await search(collection, one, [one.vector(10_001)], { limit: 30, offset: 10, output_fields: ['id'], rerank });
      expect(found.map(({ score }) => score)).toEqual(wanted.slice(10).map(({ score }) => expect.closeTo(score, 4)));
      const own = new Map(wanted.map((hit) => [hit.id, hit.score]));
      for (const { id, score } of found) expect(score).toBeCloseTo(own.get(id) ?? -1, 4);
    }
  });

  test.each([
    ['products', 'float_ip', 3],
    ['distances', 'float_l2', 0.2],
  ])(
    'of %s: boosted where a filter says so, also by a key of the dynamic field that is not asked for',
    async (collection, name, weight) => {
      const one = COLLECTIONS[collection].find(({ field }) => field === name) as VectorCase;
      const sign = collection === 'products' ? 1 : -1;
      for (const [filters, factor] of [
        [['part < 4'], (hit: Hit) => (hit.part < 4 ? weight : 1)],
        [['part < 4', 'id % 3 == 0'], (hit: Hit) => (hit.part < 4 ? weight : 1) * (hit.id % 3 === 0 ? weight : 1)],
        [[''], () => weight],
      ] as const) {
        const wanted = ranked(one, one.vector(10_001))
          .slice(0, 40)
          .map((hit) => ({ ...hit, score: hit.score * factor(hit) }))
          .sort((a, b) => sign * (b.score - a.score) || a.id - b.id);
        const functions = filters.map((filter, i) => ({
          ...{ name: `boost ${i}`, type: 'Rerank', input_field_names: [] },
          params: { reranker: 'boost', weight, ...(filter === '' ? {} : { filter }) },
        }));
        const rerank = { functions, params: {} };
        const [found] = await search(collection, one, [one.vector(10_001)], { limit: 30, offset: 10, output_fields: ['id'], rerank });
        expect(found.map(({ score }) => score)).toEqual(wanted.slice(10).map(({ score }) => expect.closeTo(score, 3)));
      }
    },
  );

  test.each([
    [{ reranker: 'model', provider: 'x' }, 'not supported: reranker model'],
    [{ reranker: 'boost', weight: 2 }, 'reranker boost takes no input fields, got id'],
    [{ reranker: 'decay', function: 'exp', origin: 1, scale: 1, score_mode: 'least' }, 'score_mode must be max, sum or avg'],
    [{ reranker: 'decay', function: 'gauss', scale: 1 }, 'needs the parameter origin'],
    [{ reranker: 'decay', function: 'gauss', origin: 1, scale: 0 }, 'scale of reranker decay must be above 0'],
    [{ reranker: 'decay', function: 'step', origin: 1, scale: 1 }, 'must be gauss, exp or linear'],
    [{ reranker: 'decay', function: 'exp', origin: 1, scale: 1, decay: 1 }, 'must be in (0, 1)'],
  ])('asked for wrongly: %j', async (params, reason) => {
    const [one] = COLLECTIONS.products;
    const rerank = { name: 'fade', type: 'Rerank', input_field_names: ['id'], params };
    const { status } = await sdk.search({
      collection_name: 'products',
      anns_field: one.field,
      data: one.vector(1),
      limit: 3,
      rerank,
    } as never);
    expect(status.reason).toContain(reason);
  });
});

test('page by page through a graph: no row twice, in order, and nearly all of them', { timeout: 60_000 }, async () => {
  const [count, dim] = [6000, 32];
  const random = seeded(4);
  const data = Array.from({ length: count }, (_, id) => ({ id, vector: Array.from({ length: dim }, () => random() - 0.5) }));
  const created = await sdk.createCollection({
    ...{ collection_name: 'graph', shards_num: 1, consistency_level: 'Strong' },
    fields: [
      { name: 'id', data_type: DataType.Int64, is_primary_key: true },
      { name: 'vector', data_type: DataType.FloatVector, dim },
    ],
    index_params: [{ field_name: 'vector', index_type: 'HNSW', metric_type: 'COSINE', params: { M: 16, efConstruction: 128 } }],
  } as never);
  expect(created.error_code, created.reason).toBe('Success');
  for (let first = 0; first < count; first += 2000) {
    const { status } = await sdk.insert({ collection_name: 'graph', data: data.slice(first, first + 2000) });
    expect(status.error_code, status.reason).toBe('Success');
  }
  await sdk.flushSync({ collection_names: ['graph'] });
  for (;;) {
    const [index] = (await sdk.describeIndex({ collection_name: 'graph' })).index_descriptions;
    if (index?.state === 'Finished' && Number(index.pending_index_rows) === 0) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await sdk.releaseCollection({ collection_name: 'graph' });
  await sdk.loadCollectionSync({ collection_name: 'graph' });
  const query = data[7].vector.map((value) => value + 0.1);
  const iterator = await sdk.searchIterator({
    ...{ collection_name: 'graph', anns_field: 'vector', data: query, batchSize: 50, limit: -1, output_fields: ['id'] },
  } as never);
  const found: Hit[] = [];
  for await (const page of iterator) found.push(...(page as unknown as Hit[]));
  expect(new Set(found.map(({ id }) => id)).size).toBe(found.length);
  expect(found.every(({ score }, i) => i === 0 || score <= found[i - 1].score)).toBe(true);
  expect(found.length).toBeGreaterThan(count * 0.99);
});
