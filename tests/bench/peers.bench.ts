/**
 * Beside Weaviate and PostgreSQL with pgvector: the same 100,000 × 128 rows, one shard and one segment each, HNSW M 16, efConstruction 128, L2, top 10, on
 * loopback. Sides take turns; medians. Recall stands beside every figure: ef is the same for all, or, with `even`, the least of 16, 24, 32, 48, ... that reaches
 * recall 0.95 on that side. A side that cannot be had says why and is left out.
 *   node tests/bench/peers.bench.ts [rows] [seconds a run] [runs] [ef|even] [cairn,weaviate,pgvector]
 */
import { seeded } from '../support/workload.ts';
import { startCairn } from './peers/cairn-side.ts';
import { startPgvector } from './peers/pgvector-side.ts';
import { type Load, type PeerData, type Side, TOP_K } from './peers/side.ts';
import { startWeaviate } from './peers/weaviate-side.ts';
import { latentPoints } from './support/points.ts';
import { printTable, quantile, round } from './support/table.ts';

const rows = Number(process.argv[2] ?? 100_000);
const seconds = Number(process.argv[3] ?? 2);
const runs = Number(process.argv[4] ?? 3);
const effort = process.argv[5] ?? '64';
const wanted = (process.argv[6] ?? 'cairn,weaviate,pgvector').split(',');
const DIM = 128;
const QUERIES = 500;
const SAMPLE = 100;
const EFFORTS = [16, 24, 32, 48, 64, 96, 128, 192, 256];
const ENOUGH = 0.95;

function makeData(): PeerData {
  const random = seeded(20);
  const points = latentPoints(DIM, random);
  return {
    dim: DIM,
    vectors: points(rows),
    buckets: Int32Array.from({ length: rows }, () => Math.floor(random() * 1000)),
    queries: points(QUERIES),
  };
}

/** Distance of the tenth nearest row of each sampled query. */
function bounds({ vectors, queries, buckets }: PeerData, below = Number.POSITIVE_INFINITY): number[] {
  return Array.from({ length: SAMPLE }, (_, q) => {
    const distances: number[] = [];
    for (let row = 0; row < rows; row++) if ((buckets[row] ?? 0) < below) distances.push(distanceOf(vectors, row, queries, q));
    return distances.sort((a, b) => a - b)[Math.min(TOP_K, distances.length) - 1] ?? 0;
  });
}

function distanceOf(vectors: Float32Array, row: number, queries: Float32Array, query: number): number {
  let sum = 0;
  for (let i = 0; i < DIM; i++) sum += ((vectors[row * DIM + i] ?? 0) - (queries[query * DIM + i] ?? 0)) ** 2;
  return sum;
}

const data = makeData();
const truths = new Map<number | undefined, number[]>();
async function recallOf(side: Side, ef: number, below?: number): Promise<number> {
  const truth = truths.get(below) ?? bounds(data, below);
  truths.set(below, truth);
  const lists = await side.nearest(SAMPLE, ef, below);
  const good = lists.flatMap((ids, q) =>
    [...new Set(ids)].filter((id) => distanceOf(data.vectors, id, data.queries, q) <= (truth[q] ?? 0) * (1 + 1e-5)),
  );
  const matching = below === undefined ? rows : data.buckets.filter((bucket) => bucket < below).length;
  return good.length / (SAMPLE * Math.min(TOP_K, matching));
}

const starters = { cairn: startCairn, weaviate: startWeaviate, pgvector: startPgvector };
const sides: { readonly side: Side; ef: number }[] = [];
try {
  const filled: Record<string, string | number>[] = [];
  for (const [name, start] of Object.entries(starters)) {
    if (!wanted.includes(name)) continue;
    let side: Side;
    try {
      side = await start();
    } catch (error) {
      console.log(`${name} is not measured: ${error instanceof Error ? error.message.slice(0, 400) : error}`);
      continue;
    }
    sides.push({ side, ef: Number(effort) });
    const { insertSeconds, indexedSeconds } = await side.fill(data);
    filled.push({
      side: side.name,
      'rows/s acknowledged': round(rows / insertSeconds, 0),
      's until acknowledged': round(insertSeconds, 2),
      's until all in the graph': round(indexedSeconds, 1),
    });
  }
  printTable(`peers: insert of ${rows} × ${DIM}`, filled);

  if (effort === 'even')
    for (const one of sides)
      for (const ef of EFFORTS) {
        one.ef = ef;
        if ((await recallOf(one.side, ef)) >= ENOUGH) break;
      }

  const loads: readonly (Pick<Load, 'clients' | 'nq' | 'below'> & { readonly what: string })[] = [
    { what: 'nq 1, 1 client', clients: 1, nq: 1 },
    { what: 'nq 1, 4 clients', clients: 4, nq: 1 },
    { what: 'nq 1, 16 clients', clients: 16, nq: 1 },
    { what: 'nq 10, 1 client', clients: 1, nq: 10 },
    { what: 'nq 10, 4 clients', clients: 4, nq: 10 },
    ...[1, 10, 100, 500].map((below) => ({ what: `nq 1, 4 clients, ${below / 10} % of the rows`, clients: 4, nq: 1, below })),
  ];
  const table: Record<string, string | number>[] = [];
  for (const { what, ...load } of loads) {
    const rates = sides.map((): number[] => []);
    for (let run = 0; run < runs; run++)
      for (const [i, { side, ef }] of sides.entries()) rates[i]?.push(await side.run({ ...load, ef, seconds }));
    const medians = rates.map((list) => quantile(list, 0.5));
    for (const [i, { side, ef }] of sides.entries())
      table.push({
        load: i === 0 ? what : '',
        side: side.name,
        'queries/s': round(medians[i] ?? 0, 0),
        range: `${round(Math.min(...(rates[i] ?? [])), 0)} to ${round(Math.max(...(rates[i] ?? [])), 0)}`,
        'recall@10': round(await recallOf(side, ef, load.below), 4),
        ef,
        'Cairn is': i === 0 ? '' : `${round((medians[0] ?? 0) / (medians[i] ?? 1), 2)} ×`,
      });
  }
  printTable(
    `peers: search of ${rows} × ${DIM}, top ${TOP_K} (${sides.map(({ side }) => `${side.name}: ${side.note}`).join('; ')})`,
    table,
  );
} finally {
  for (const { side } of sides) await side.stop();
}
