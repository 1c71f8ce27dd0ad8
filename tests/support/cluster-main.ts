/** `make cluster`: the whole cluster on this machine until Ctrl-C. CAIRN_PROXY_PORT (default 19530; the second proxy has the next port), CAIRN_CLUSTER_DIR (default ./data/cluster). */
import { resolve } from 'node:path';
import { startCluster } from './cairn.ts';

const port = Number(process.env['CAIRN_PROXY_PORT'] ?? 19530);
const dir = process.env['CAIRN_CLUSTER_DIR'] ?? './data/cluster';
const started = performance.now();

const cluster = await startCluster({ dir: resolve(dir), proxyPorts: [port, port + 1] });
console.log(
  `cluster is up after ${((performance.now() - started) / 1000).toFixed(1)} s; Milvus gRPC on ${cluster.addresses.join(' and ')}; data and logs in ${dir}`,
);
for (const server of cluster.all()) console.log(`  ${server.name.padEnd(14)} pid ${server.pid}`);

const end = Promise.withResolvers<void>();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => end.resolve());
const alive = setInterval(() => undefined, 60_000);
await end.promise;
clearInterval(alive);
console.log('stopping');
await cluster.stop();
