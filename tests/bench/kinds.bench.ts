/**
 * Kinds of scalars in which a graph may keep its vectors: size, build, time of one search, recall@10 as the graph orders its hits and after the nearest
 * of them were scored again by the exact vectors.
 *   node tests/bench/kinds.bench.ts [packages|clusters] [COSINE|IP|L2] [ef]
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { usearch } from '../../libs/index/src/usearch.ts';
import { seeded } from '../support/workload.ts';
import { PACKAGES_DIM, packagesData } from './support/packages.ts';
import { clusteredVectors } from './support/requests.ts';
import { printTable, quantile, round } from './support/table.ts';

const data = process.argv[2] ?? 'packages';
const metric = process.argv[3] ?? 'COSINE';
const EF = Number(process.argv[4] ?? 64);
const K = 10;
const ROUNDS = 3;

const { vectors, queries, dim } =
  data === 'packages'
    ? { ...packagesData(), dim: PACKAGES_DIM }
    : {
        vectors: clusteredVectors(20_000, 128, seeded(1)),
        queries: clusteredVectors(20_500, 128, seeded(1)).slice(20_000 * 128),
        dim: 128,
      };
const rows = vectors.length / dim;
const nq = queries.length / dim;
const { CompiledIndex } = usearch();

const rowOf = (all: Float32Array, row: number): Float32Array => all.subarray(row * dim, (row + 1) * dim);
function unit(all: Float32Array): Float32Array {
  const out = new Float32Array(all.length);
  for (let row = 0; row < all.length / dim; row++) {
    const one = rowOf(all, row);
    const norm = Math.hypot(...one) || 1;
    for (let i = 0; i < dim; i++) out[row * dim + i] = (one[i] ?? 0) / norm;
  }
  return out;
}
/** int8 with one scale for all. */
function toInt8(all: Float32Array, scale: number): Int8Array {
  const out = new Int8Array(all.length);
  for (let i = 0; i < all.length; i++) out[i] = Math.max(-127, Math.min(127, Math.round((all[i] ?? 0) * scale)));
  return out;
}
/** int8 with a scale of each row. */
function rowInt8(all: Float32Array): Int8Array {
  const out = new Int8Array(all.length);
  for (let row = 0; row < all.length / dim; row++) {
    const one = rowOf(all, row);
    const most = one.reduce((max, value) => Math.max(max, Math.abs(value)), 1e-30);
    out.set(toInt8(one, 127 / most), row * dim);
  }
  return out;
}
function distance(query: Float32Array, row: number): number {
  let sum = 0;
  const at = row * dim;
  if (metric === 'L2') {
    for (let i = 0; i < dim; i++) sum += ((query[i] ?? 0) - (exactVectors[at + i] ?? 0)) ** 2;
    return sum;
  }
  for (let i = 0; i < dim; i++) sum += (query[i] ?? 0) * (exactVectors[at + i] ?? 0);
  return -sum;
}

const units = unit(vectors);
const unitQueries = unit(queries);
const exactVectors = metric === 'COSINE' ? units : vectors;
const exactQueries = metric === 'COSINE' ? unitQueries : queries;
const least = Float64Array.from({ length: nq }, (_, q) => {
  const query = rowOf(exactQueries, q);
  return Float64Array.from({ length: rows }, (_, row) => distance(query, row)).sort()[K - 1] ?? 0;
});
const most = vectors.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
const mostQuery = queries.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
const sorted = Float32Array.from(units, Math.abs).sort();
const clip = sorted[Math.floor(sorted.length * 0.9999)] ?? 1;
const native = { COSINE: 'cos', IP: 'ip', L2: 'l2sq' }[metric] ?? 'cos';

interface Candidate {
  readonly name: string;
  readonly native: string;
  readonly kind: string;
  readonly base: Float32Array | Int8Array;
  readonly asked: Float32Array | Int8Array;
}
const candidates: Candidate[] = ['f32', 'f16', 'bf16'].map((kind) => ({
  name: kind,
  native,
  kind,
  base: vectors,
  asked: queries,
}));
if (metric === 'COSINE') {
  candidates.push({ name: 'i8 by usearch, from floats', native: 'cos', kind: 'i8', base: vectors, asked: queries });
  candidates.push({ name: 'i8, scale by row', native: 'cos', kind: 'i8', base: rowInt8(vectors), asked: rowInt8(queries) });
  candidates.push({
    name: 'i8, units, one scale',
    native: 'ip',
    kind: 'i8',
    base: toInt8(units, 127 / clip),
    asked: toInt8(unitQueries, 127 / clip),
  });
} else {
  const scale = 127 / most;
  candidates.push({
    name: 'i8, one scale',
    native,
    kind: 'i8',
    base: toInt8(vectors, scale),
    asked: toInt8(queries, metric === 'L2' ? scale : 127 / mostQuery),
  });
}

const directory = mkdtempSync(join(tmpdir(), 'cairn-bench-'));
const keys = BigUint64Array.from({ length: rows }, (_, row) => BigInt(row));
const built = candidates.flatMap((candidate) => {
  const path = join(directory, candidate.name.replaceAll(/\W/g, '-'));
  const begin = process.cpuUsage();
  try {
    const index = new CompiledIndex(dim, candidate.native, candidate.kind, 16, 128, 1, false);
    index.add(keys, candidate.base, 2);
    const { user, system } = process.cpuUsage(begin);
    index.save(path);
    const view = new CompiledIndex(dim, candidate.native, candidate.kind, 16, 128, 1, false);
    view.view(path);
    return [
      { ...candidate, view, buildS: (user + system) / 1e6, mb: statSync(path).size / 1e6, us: [] as number[], batch: [] as number[] },
    ];
  } catch (error) {
    console.log(`${candidate.name}: ${error instanceof Error ? error.message : error}`);
    return [];
  }
});
const asked = (candidate: Candidate, q: number): Float32Array | Int8Array => candidate.asked.slice(q * dim, (q + 1) * dim);
for (let turn = 0; turn < ROUNDS; turn++) {
  for (const one of built) {
    const begin = process.threadCpuUsage();
    for (let q = 0; q < nq; q++) one.view.search(asked(one, q), EF, 1);
    const { user, system } = process.threadCpuUsage(begin);
    one.us.push((user + system) / nq);
    const all = process.cpuUsage();
    one.view.search(one.asked.slice(0, Math.min(nq, 500) * dim), EF, 2);
    const took = process.cpuUsage(all);
    one.batch.push((took.user + took.system) / Math.min(nq, 500));
  }
}
const near = (q: number, row: number): boolean => distance(rowOf(exactQueries, q), row) <= (least[q] ?? 0) + 1e-5 * Math.abs(least[q] ?? 0);
printTable(
  `kinds: ${data} ${rows} x ${dim}, ${metric}, M 16, efConstruction 128, ef ${EF}`,
  built.map((one) => {
    const hits = { plain: 0, some: 0, all: 0 };
    for (let q = 0; q < nq; q++) {
      const found = [...one.view.search(asked(one, q), EF, 1)[0]].map(Number);
      const best = (count: number): number[] =>
        found
          .slice(0, count)
          .map((row) => ({ row, score: distance(rowOf(exactQueries, q), row) }))
          .sort((a, b) => a.score - b.score)
          .slice(0, K)
          .map(({ row }) => row);
      hits.plain += found.slice(0, K).filter((row) => near(q, row)).length;
      hits.some += best(Math.max(2 * K, K + 16)).filter((row) => near(q, row)).length;
      hits.all += best(EF).filter((row) => near(q, row)).length;
    }
    return {
      kind: one.name,
      MB: round(one.mb, 1),
      'build CPU s': round(one.buildS, 2),
      'CPU us': round(quantile(one.us, 0.5), 0),
      'CPU us in batch': round(quantile(one.batch, 0.5), 0),
      'recall as is': round(hits.plain / (nq * K), 4),
      'by 26': round(hits.some / (nq * K), 4),
      'by ef': round(hits.all / (nq * K), 4),
    };
  }),
);
rmSync(directory, { recursive: true });
