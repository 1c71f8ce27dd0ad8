/**
 * PostgreSQL 16.2 with pgvector 0.6.2, both out of the PyPI package pgserver. Rows by one COPY in binary (the log is synced at its end), then the index
 * in parallel. Asked by pgbench, a client in C, with prepared statements over a unix socket; it takes the vectors from a table, so that
 * none is parsed. nq vectors are one statement with a lateral join.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { preparePython } from '../../support/python.ts';
import { type Filled, HNSW, type Load, type PeerData, type Side, TOP_K } from './side.ts';

const run = promisify(execFile);
const PGSERVER = 'pgserver==0.1.4';

/** Rows of PostgreSQL's binary COPY format: int fields, then one vector. */
function copyBytes(integers: readonly Int32Array[], vectors: Float32Array, dim: number): Buffer {
  const rows = vectors.length / dim;
  const rowBytes = 2 + integers.length * 8 + 4 + 4 + dim * 4;
  const header = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)]);
  const bytes = Buffer.alloc(header.length + rows * rowBytes + 2);
  header.copy(bytes);
  let at = header.length;
  for (let row = 0; row < rows; row++) {
    at = bytes.writeInt16BE(integers.length + 1, at);
    for (const column of integers) {
      at = bytes.writeInt32BE(4, at);
      at = bytes.writeInt32BE(column[row] ?? 0, at);
    }
    at = bytes.writeInt32BE(4 + dim * 4, at);
    at = bytes.writeInt16BE(dim, at);
    at = bytes.writeInt16BE(0, at);
    for (let i = 0; i < dim; i++) at = bytes.writeFloatBE(vectors[row * dim + i] ?? 0, at);
  }
  bytes.writeInt16BE(-1, at);
  return bytes;
}

const numbered = (count: number): Int32Array => Int32Array.from({ length: count }, (_, i) => i);

export async function startPgvector(): Promise<Side> {
  const prepared = await preparePython([PGSERVER]);
  if ('missing' in prepared) throw new Error(prepared.missing);
  const dir = await mkdtemp(join(tmpdir(), 'cairn-pg-'));
  await chmod(dir, 0o755);
  const child = spawn(prepared.python, [join(import.meta.dirname, 'pgvector_server.py'), join(dir, 'data')], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, XDG_RUNTIME_DIR: dir },
  });
  const first = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
  if (first.done) throw new Error('PostgreSQL did not start');
  const { uri, bin } = JSON.parse(first.value) as { uri: string; bin: string };
  let data: PeerData;

  async function sql(text: string): Promise<string> {
    const { stdout } = await run(join(bin, 'psql'), ['-X', '-q', '-At', '-v', 'ON_ERROR_STOP=1', '-c', text, uri], { maxBuffer: 1 << 26 });
    return stdout;
  }
  async function copy(table: string, bytes: Buffer): Promise<void> {
    const file = join(dir, `${table}.bin`);
    await writeFile(file, bytes, { mode: 0o644 });
    await sql(`COPY ${table} FROM '${file}' (FORMAT binary)`);
  }
  const where = (below: number | undefined): string => (below === undefined ? '' : `WHERE bucket < ${below}`);

  return {
    name: 'PostgreSQL 16.2, pgvector 0.6.2',
    note: 'unix socket, pgbench (C)',
    async fill(given: PeerData): Promise<Filled> {
      data = given;
      const { dim } = data;
      const count = data.queries.length / dim;
      await sql(`CREATE TABLE items (id int PRIMARY KEY, bucket int, v vector(${dim}))`);
      await sql(`CREATE TABLE queries (i int PRIMARY KEY, v vector(${dim}))`);
      await copy('queries', copyBytes([numbered(count)], data.queries, dim));
      const file = join(dir, 'items.bin');
      await writeFile(file, copyBytes([numbered(data.buckets.length), data.buckets], data.vectors, dim), { mode: 0o644 });
      const start = performance.now();
      await sql(`COPY items FROM '${file}' (FORMAT binary)`);
      const insertSeconds = (performance.now() - start) / 1000;
      await sql(
        `SET maintenance_work_mem = '1GB'; CREATE INDEX ON items USING hnsw (v vector_l2_ops) WITH (m = ${HNSW.M}, ef_construction = ${HNSW.efConstruction})`,
      );
      await sql('CREATE INDEX ON items (bucket)');
      const indexedSeconds = (performance.now() - start) / 1000;
      await sql('VACUUM ANALYZE items');
      return { insertSeconds, indexedSeconds };
    },
    async nearest(queries, ef, below) {
      const statements = Array.from(
        { length: queries },
        (_, i) =>
          `SELECT ${i}, id FROM (SELECT id FROM items ${where(below)} ORDER BY v <-> (SELECT v FROM queries WHERE i = ${i}) LIMIT ${TOP_K}) t`,
      );
      const lists = Array.from({ length: queries }, (): number[] => []);
      for (const line of (await sql(`SET hnsw.ef_search = ${ef}; ${statements.join('; ')}`)).trim().split('\n')) {
        const [query = 0, id = 0] = line.split('|').map(Number);
        lists[query]?.push(id);
      }
      return lists;
    },
    async run({ clients, nq, ef, below, seconds }: Load) {
      const steps = Math.floor(data.queries.length / data.dim / nq);
      const one = `SELECT id FROM items ${where(below)} ORDER BY v <-> (SELECT v FROM queries WHERE i = :i) LIMIT ${TOP_K};`;
      const many =
        `SELECT q.i, t.id FROM queries q CROSS JOIN LATERAL (SELECT id FROM items ${where(below)} ORDER BY v <-> q.v LIMIT ${TOP_K}) t ` +
        `WHERE q.i BETWEEN :i * ${nq} AND :i * ${nq} + ${nq - 1};`;
      const file = join(dir, 'script.sql');
      await writeFile(file, `\\set i random(0, ${steps - 1})\n${nq === 1 ? one : many}\n`);
      const args = ['-n', '-M', 'prepared', '-c', String(clients), '-j', '1', '-T', String(Math.ceil(seconds)), '-f', file, uri];
      const { stdout } = await run(join(bin, 'pgbench'), args, { env: { ...process.env, PGOPTIONS: `-c hnsw.ef_search=${ef}` } });
      const tps = /tps = ([\d.]+)/.exec(stdout)?.[1];
      if (tps === undefined) throw new Error(`pgbench: ${stdout.slice(-300)}`);
      return Number(tps) * nq;
    },
    async stop() {
      const exited = once(child, 'exit');
      child.stdin.end();
      await exited;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
