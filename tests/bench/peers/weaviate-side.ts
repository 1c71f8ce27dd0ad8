/**
 * Weaviate, built from its Go module with Go's own compiler into the cache of the tools (once, some seven minutes of CPU). One shard; batches of 1,000
 * objects by four connections over gRPC. It takes one vector a search: nq vectors are nq searches under way at once on the connection.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rename } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePorts, ServerProcess } from '../../support/servers.ts';
import { runLoad } from '../support/load.ts';
import { callRaw } from './raw-call.ts';
import { base64, type Filled, HNSW, type Load, type PeerData, queryOf, type Side, TOP_K } from './side.ts';
import { bytesField, doubleField, fieldsOf, integerField, join } from './wire-bytes.ts';

const run = promisify(execFile);
const BUILD_MS = 1_800_000;
const SERVICE = '/weaviate.v1.Weaviate/';
const CLASS = 'Peers';
const BATCH = 1000;
const LESS_THAN = 5;

/** Path of the server; throws why it cannot be had. */
async function buildWeaviate(): Promise<string> {
  const module = joinPath(import.meta.dirname, 'weaviate');
  const hash = createHash('sha256');
  for (const file of ['go.mod', 'go.sum']) hash.update(readFileSync(joinPath(module, file)));
  const cache = joinPath(process.env['CAIRN_TOOLS_CACHE'] ?? joinPath(homedir(), '.cache/cairn-tools'), 'bin');
  const program = joinPath(cache, `weaviate-${hash.digest('hex').slice(0, 12)}`);
  if (existsSync(program)) return program;
  await mkdir(cache, { recursive: true });
  console.log('building Weaviate from its Go module (once) ...');
  const env = { ...process.env, GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly', CGO_ENABLED: '0' };
  const args = ['build', '-trimpath', '-ldflags', '-s -w', '-o', `${program}.tmp`, 'github.com/weaviate/weaviate/cmd/weaviate-server'];
  await run('go', args, { cwd: module, env, timeout: BUILD_MS });
  await rename(`${program}.tmp`, program);
  return program;
}

const keyOf = (row: number): string => `00000000-0000-0000-0000-${row.toString(16).padStart(12, '0')}`;
const vectorBytes = (vector: Float32Array): Uint8Array => new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);

function objectMessage(row: number, bucket: number, vector: Float32Array): Uint8Array {
  const entry = join(bytesField(1, 'bucket'), bytesField(2, doubleField(2, bucket)));
  const properties = bytesField(3, bytesField(1, bytesField(1, entry)));
  return join(bytesField(1, keyOf(row)), properties, bytesField(4, CLASS), bytesField(6, vectorBytes(vector)));
}

function searchMessage(vector: Float32Array, below: number | undefined): Uint8Array {
  const filter = (bound: number): Uint8Array =>
    bytesField(40, join(integerField(1, LESS_THAN), integerField(5, bound), bytesField(20, bytesField(1, 'bucket'))));
  return join(
    bytesField(1, CLASS),
    bytesField(21, integerField(1, 1)),
    integerField(30, TOP_K),
    below === undefined ? new Uint8Array() : filter(below),
    bytesField(43, bytesField(4, vectorBytes(vector))),
    integerField(102, 1),
  );
}

export async function startWeaviate(): Promise<Side> {
  const program = await buildWeaviate();
  const dir = await mkdtemp(joinPath(tmpdir(), 'cairn-weaviate-'));
  const [http = 0, grpc = 0, gossip = 0, , raft = 0, raftRpc = 0] = await freePorts(6);
  const server = new ServerProcess({
    name: 'weaviate',
    command: program,
    args: ['--host', '127.0.0.1', '--port', String(http), '--scheme', 'http'],
    dir,
    ownsDir: true,
    env: {
      PERSISTENCE_DATA_PATH: joinPath(dir, 'data'),
      AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED: 'true',
      DEFAULT_VECTORIZER_MODULE: 'none',
      CLUSTER_HOSTNAME: 'node1',
      CLUSTER_ADVERTISE_ADDR: '127.0.0.1',
      CLUSTER_BIND_ADDR: '127.0.0.1',
      CLUSTER_GOSSIP_BIND_PORT: String(gossip),
      CLUSTER_DATA_BIND_PORT: String(gossip + 1),
      RAFT_PORT: String(raft),
      RAFT_INTERNAL_RPC_PORT: String(raftRpc),
      RAFT_BOOTSTRAP_EXPECT: '1',
      GRPC_PORT: String(grpc),
      DISABLE_TELEMETRY: 'true',
      GO_PROFILING_DISABLE: 'true',
      LOG_LEVEL: 'warning',
    },
    ready: async () => (await fetch(`http://127.0.0.1:${http}/v1/.well-known/ready`)).ok,
  });
  server.launch();
  try {
    await server.waitReady();
  } catch (error) {
    await server.stop();
    throw error;
  }
  const address = `127.0.0.1:${grpc}`;
  let data: PeerData;
  let effort = 0;

  async function schema(method: 'POST' | 'PUT' | 'GET', path: string, body?: unknown): Promise<Record<string, unknown>> {
    const init = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
    const reply = await fetch(`http://127.0.0.1:${http}/v1${path}`, { method, ...init });
    if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${(await reply.text()).slice(0, 300)}`);
    return (await reply.json()) as Record<string, unknown>;
  }
  /** ef belongs to the class there. */
  async function setEf(ef: number): Promise<void> {
    if (ef === effort) return;
    const current = await schema('GET', `/schema/${CLASS}`);
    const vectorIndexConfig = { ...(current['vectorIndexConfig'] as object), ef };
    await schema('PUT', `/schema/${CLASS}`, { ...current, vectorIndexConfig });
    effort = ef;
  }
  async function count(): Promise<number> {
    const reply = await schema('POST', '/graphql', { query: `{Aggregate{${CLASS}{meta{count}}}}` });
    const found = reply as { data?: { Aggregate?: Record<string, { meta: { count: number } }[]> } };
    return found.data?.Aggregate?.[CLASS]?.[0]?.meta.count ?? 0;
  }

  return {
    name: 'Weaviate 1.35.2',
    note: 'gRPC, Node client',
    async fill(given: PeerData): Promise<Filled> {
      data = given;
      await schema('POST', '/schema', {
        class: CLASS,
        vectorizer: 'none',
        vectorIndexType: 'hnsw',
        vectorIndexConfig: { distance: 'l2-squared', maxConnections: HNSW.M, efConstruction: HNSW.efConstruction, ef: 64 },
        properties: [{ name: 'bucket', dataType: ['int'], indexFilterable: true, indexRangeFilters: true }],
        replicationConfig: { factor: 1 },
      });
      effort = 64;
      const rows = data.buckets.length;
      const objectOf = (row: number): Uint8Array =>
        objectMessage(row, data.buckets[row] ?? 0, data.vectors.slice(row * data.dim, (row + 1) * data.dim));
      const requests: string[] = [];
      for (let first = 0; first < rows; first += BATCH) {
        const objects = Array.from({ length: Math.min(BATCH, rows - first) }, (_, i) => bytesField(1, objectOf(first + i)));
        requests.push(base64(join(...objects)));
      }
      // A batch is answered with OK whatever became of its rows: one row is looked at first.
      const probe = await callRaw(address, `${SERVICE}BatchObjects`, bytesField(1, objectOf(0)));
      for (const error of fieldsOf(probe, 2)) throw new Error(`Weaviate refuses rows: ${new TextDecoder().decode(fieldsOf(error, 2)[0])}`);
      const start = performance.now();
      const spec = { address, path: `${SERVICE}BatchObjects`, requests, connections: 4, depth: 1, once: true, durationMs: 0 };
      const load = await runLoad(spec);
      while ((await count()) < rows) {
        if (performance.now() - start > 300_000) throw new Error(`Weaviate has ${await count()} of ${rows} rows`);
        await sleep(200);
      }
      return { insertSeconds: load.seconds, indexedSeconds: (performance.now() - start) / 1000 };
    },
    async nearest(queries, ef, below) {
      await setEf(ef);
      const lists: number[][] = [];
      for (let i = 0; i < queries; i++) {
        const reply = await callRaw(address, `${SERVICE}Search`, searchMessage(queryOf(data, i), below));
        const metadata = fieldsOf(reply, 2).flatMap((result) => fieldsOf(result, 2));
        lists.push(metadata.map((one) => Number.parseInt(new TextDecoder().decode(fieldsOf(one, 1)[0]).slice(-12), 16)));
      }
      return lists;
    },
    async run({ clients, nq, ef, below, seconds }: Load) {
      await setEf(ef);
      const requests = Array.from({ length: 200 }, (_, i) => base64(searchMessage(queryOf(data, i), below)));
      const spec = {
        address,
        path: `${SERVICE}Search`,
        requests,
        connections: clients,
        depth: nq,
        once: false,
        durationMs: seconds * 1000,
      };
      const load = await runLoad(spec);
      return load.calls / load.seconds;
    },
    stop: () => server.stop(),
  };
}
