/**
 * Search through a whole server against (a) the same client at a server that answers a canned result and (b) usearch called directly on the same
 * segment files. 20,000 × 384, HNSW M 16, efConstruction 128, COSINE, top 10, ef 64 where none is given.
 *   node tests/bench/serve.bench.ts [standalone|cluster] [seconds a run] [ef]
 */
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SearchResults } from '@cairn/proto/milvus/milvus';
import { Client, credentials } from '@grpc/grpc-js';
import { codeQueries, codesBefore } from '../../libs/index/src/graph-codes.ts';
import { readTrailer } from '../../libs/index/src/index-file.ts';
import { metricOf } from '../../libs/index/src/metric.ts';
import { usearch } from '../../libs/index/src/usearch.ts';
import { startCluster, startStandalone } from '../support/cairn.ts';
import { freePorts } from '../support/servers.ts';
import { runLoad } from './support/load.ts';
import { PACKAGES_DIM, packagesData } from './support/packages.ts';
import { createCollection, insertRequest, PATH, searchRequest, settleAndLoad } from './support/requests.ts';
import { printTable, quantile, round } from './support/table.ts';

const mode = process.argv[2] ?? 'standalone';
const seconds = Number(process.argv[3] ?? 4);
const DIM = PACKAGES_DIM;
const TOP_K = 10;
const EF = Number(process.argv[4] ?? 64);
const RUNS = 3;

const { vectors, queries, source } = packagesData();
const rows = vectors.length / DIM;
const queryCount = queries.length / DIM;
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

const server = mode === 'cluster' ? await startCluster() : await startStandalone();
const address = 'addresses' in server ? (server.addresses[0] ?? '') : server.address;
let canned: ChildProcess | undefined;
const scratch = mkdtempSync(join(tmpdir(), 'cairn-bench-'));
try {
  const collection = 'bench';
  await createCollection(address, collection, DIM, { shards: mode === 'cluster' ? 2 : 1 });
  const inserts: string[] = [];
  for (let row = 0; row < rows; row += 1000)
    inserts.push(base64(insertRequest(collection, row, vectors.subarray(row * DIM, Math.min(rows, row + 1000) * DIM), DIM)));
  await runLoad({ address, path: `${PATH}Insert`, requests: inserts, connections: 1, depth: 2, once: true, durationMs: 0 });
  await settleAndLoad(address, collection);

  const shape = { collection, field: 'vector', metric: 'COSINE', topK: TOP_K, ef: EF };
  const single = Array.from({ length: queryCount }, (_, i) => searchRequest(shape, queries.slice(i * DIM, (i + 1) * DIM), DIM));
  const hundred = Array.from({ length: Math.floor(queryCount / 100) }, (_, i) =>
    searchRequest(shape, queries.slice(i * 100 * DIM, (i + 1) * 100 * DIM), DIM),
  );

  // Recall, and the reply that the canned server repeats.
  const client = new Client(address, credentials.createInsecure());
  const call = (request: Uint8Array): Promise<Buffer> =>
    new Promise((resolve, reject) =>
      client.makeUnaryRequest(
        `${PATH}Search`,
        (value: Buffer) => value,
        (value: Buffer) => value,
        Buffer.from(request),
        (error, reply) => (error || !reply ? reject(error) : resolve(reply)),
      ),
    );
  let found = 0;
  const norms = Float64Array.from({ length: rows }, (_, row) => Math.hypot(...vectors.subarray(row * DIM, (row + 1) * DIM)));
  const sample = Math.min(100, queryCount);
  for (let q = 0; q < sample; q++) {
    const query = queries.subarray(q * DIM, (q + 1) * DIM);
    const norm = Math.hypot(...query);
    const exact = Float64Array.from({ length: rows }, (_, row) => {
      let dot = 0;
      for (let i = 0; i < DIM; i++) dot += (vectors[row * DIM + i] ?? 0) * (query[i] ?? 0);
      return dot / norm / (norms[row] ?? 1);
    }).sort();
    const least = (exact[rows - TOP_K] ?? 0) - 1e-5;
    const reply = SearchResults.decode(await call(single[q] ?? new Uint8Array()));
    if (reply.status?.code) throw new Error(reply.status.reason);
    found += (reply.results?.scores ?? []).filter((score) => score >= least).length;
  }
  const recall = found / (sample * TOP_K);
  const cannedFile = join(scratch, 'canned.json');
  writeFileSync(cannedFile, JSON.stringify({ [`${PATH}Search`]: base64(await call(single[0] ?? new Uint8Array())) }));
  client.close();
  const [cannedPort = 0] = await freePorts(1);
  canned = fork(join(import.meta.dirname, 'support/canned-server.ts'), [String(cannedPort), cannedFile]);
  await new Promise((resolve) => canned?.once('message', resolve));

  const run = async (
    target: string,
    requests: readonly Uint8Array[],
    clients: number,
  ): Promise<{ qps: number; p50: number; p99: number }> => {
    const result = await runLoad({
      address: target,
      path: `${PATH}Search`,
      requests: requests.map(base64),
      connections: clients,
      depth: 1,
      once: false,
      durationMs: seconds * 1000,
    });
    return { qps: result.calls / result.seconds, p50: quantile(result.latenciesMs, 0.5), p99: quantile(result.latenciesMs, 0.99) };
  };
  const table: Record<string, string | number>[] = [];
  for (const clients of [1, 4]) {
    const ours: { qps: number; p50: number; p99: number }[] = [];
    const limit: number[] = [];
    for (let i = 0; i < RUNS; i++) {
      ours.push(await run(address, single, clients));
      limit.push((await run(`127.0.0.1:${cannedPort}`, single, clients)).qps);
    }
    const qps = quantile(
      ours.map((one) => one.qps),
      0.5,
    );
    table.push({
      what: `nq=1, ${clients} clients`,
      'searches/s': round(qps, 0),
      'p50 ms': round(
        quantile(
          ours.map((one) => one.p50),
          0.5,
        ),
        2,
      ),
      'p99 ms': round(
        quantile(
          ours.map((one) => one.p99),
          0.5,
        ),
        2,
      ),
      'canned/s': round(quantile(limit, 0.5), 0),
      'of limit': `${round((100 * qps) / quantile(limit, 0.5))} %`,
      'recall@10': round(recall, 4),
    });
  }

  const files =
    'dataDir' in server
      ? readdirSync(join(server.dataDir, 'objects'), { recursive: true })
          .map(String)
          .filter((name) => /index\.[^/]*$/.test(name))
      : [];
  if ('dataDir' in server && files.length > 0) {
    const { CompiledIndex } = usearch();
    const direct: number[] = [];
    const floats: number[] = [];
    const ours: number[] = [];
    const open = (path: string) => {
      const trailer = readTrailer(path);
      const codes = trailer.codes ?? codesBefore(trailer.dataType);
      const index = new CompiledIndex(DIM, 'cos', codes.scalar, 16, 128, EF, false);
      index.view(path);
      return { index, codes };
    };
    const indexes = files.map((name) => open(join(server.dataDir, 'objects', name)));
    // The same rows in float32, as usearch is used without codes.
    const whole = files.map((_, part) => {
      const [from, end] = [Math.floor((rows * part) / files.length), Math.floor((rows * (part + 1)) / files.length)];
      const index = new CompiledIndex(DIM, 'cos', 'f32', 16, 128, EF, false);
      index.add(
        BigUint64Array.from({ length: end - from }, (_, i) => BigInt(i)),
        vectors.slice(from * DIM, end * DIM),
        2,
      );
      return { index, codes: codesBefore(0) };
    });
    const measure = (parts: typeof indexes): number => {
      const start = performance.now();
      let done = 0;
      while (performance.now() - start < seconds * 1000) {
        const at = (done % (queryCount - 100)) * DIM;
        const asked = queries.slice(at, at + 100 * DIM);
        for (const { index, codes } of parts) index.search(codeQueries(codes, metricOf('COSINE'), asked, DIM), TOP_K, 0);
        done += 100;
      }
      return (done / (performance.now() - start)) * 1000;
    };
    for (let i = 0; i < RUNS; i++) {
      ours.push((await run(address, hundred, 1)).qps * 100);
      direct.push(measure(indexes));
      floats.push(measure(whole));
    }
    const qps = quantile(ours, 0.5);
    table.push({
      what: 'nq=100, 1 client (queries/s)',
      'searches/s': round(qps, 0),
      'canned/s': `usearch ${round(quantile(direct, 0.5), 0)}, float32 ${round(quantile(floats, 0.5), 0)}`,
      'of limit': `${round((100 * qps) / quantile(direct, 0.5))} %, ${round((100 * qps) / quantile(floats, 0.5))} %`,
      'recall@10': round(recall, 4),
    });
  }
  printTable(`search, ${mode}, ${rows} × ${DIM} (${source}), HNSW M 16, ef ${EF}`, table);
} finally {
  canned?.kill();
  await server.stop();
  rmSync(scratch, { recursive: true, force: true });
}
