/**
 * What the image runs: the sources and most packages as a few files of plain JavaScript (docs/decisions/021). usage: node bundle.ts OUT
 *
 *   OUT/bundle/{main,round-trip,warm}.js  the `cairn` command, the SDK's round trip, the last step of making an image; workers and shared chunks beside them
 *   OUT/node_modules                      packages that cannot be bundled, with all they need, as they lie in the repository's own node_modules
 *
 * Nothing is minified: a stack trace in a log names functions as the sources do.
 */
import { cpSync, existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { type Plugin, rolldown } from 'rolldown';

const root = join(import.meta.dirname, '../..');
const out = resolve(process.argv[2] ?? '');
if (process.argv.length !== 3) {
  console.error('usage: node bundle.ts OUT');
  process.exit(2);
}
/** Packages that load binaries, protocol texts or programs of workers from their own directories. */
const APART = ['@grpc/grpc-js', '@node-rs/crc32', 'etcd3', 'lmdb', 'pino', 'usearch'];
const WORKER = /new URL\('(\.\/[\w-]+)\.ts', import\.meta\.url\)/g;

/** A worker's program becomes a file of its own, and the URL that names it says so. */
const workers: Plugin = {
  name: 'workers',
  transform(code, id) {
    if (!id.endsWith('.ts')) return null;
    return code.replaceAll(WORKER, (_, path: string) => {
      const name = `${path.slice(2)}.js`;
      this.emitFile({ type: 'chunk', id: join(dirname(id), `${path}.ts`), fileName: name });
      return `new URL('./${name}', import.meta.url)`;
    });
  },
};

/** The room or package that a chunk ends with: the rest of it is what that one needs. */
function roomOf(moduleIds: readonly string[]): string {
  const last = moduleIds.findLast((id) => id.startsWith(root));
  if (last === undefined) return 'runtime';
  const parts = relative(root, last).split(sep);
  return parts[0] === 'node_modules' ? `package-${parts[1]?.replace('@', '')}` : parts.slice(0, 2).join('-');
}

const bundle = await rolldown({
  cwd: root,
  input: { main: 'tools/cli/src/main.ts', 'round-trip': 'deploy/docker/round-trip.ts', warm: 'deploy/docker/warm.ts' },
  platform: 'node',
  external: [/^node:/, ...APART],
  plugins: [workers],
});
await bundle.write({
  dir: join(out, 'bundle'),
  format: 'esm',
  entryFileNames: '[name].js',
  chunkFileNames: ({ moduleIds }) => `${roomOf(moduleIds)}-[hash].js`,
});

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Where `from` finds a package, as Node looks for it; undefined: it is not installed. */
function find(name: string, from: string): string | undefined {
  for (let directory = from; directory.startsWith(root); directory = dirname(directory)) {
    const candidate = join(directory, 'node_modules', name);
    if (existsSync(join(candidate, 'package.json'))) return candidate;
  }
  return undefined;
}

const taken = new Set<string>();
function take(name: string, from: string, optional: boolean): void {
  const directory = find(name, from);
  if (directory === undefined) {
    // A package of another platform, most likely.
    if (optional) return;
    throw new Error(`${name}, which ${relative(root, from)} needs, is not installed`);
  }
  if (taken.has(directory)) return;
  taken.add(directory);
  cpSync(directory, join(out, relative(root, directory)), {
    recursive: true,
    filter: (path) => path === directory || !relative(directory, path).split(sep).includes('node_modules'),
  });
  const manifest = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as Manifest;
  for (const needed of Object.keys(manifest.optionalDependencies ?? {})) take(needed, directory, true);
  for (const needed of Object.keys(manifest.dependencies ?? {}))
    if (!(needed in (manifest.optionalDependencies ?? {}))) take(needed, directory, false);
}
for (const name of APART) take(name, root, false);
console.log(`${taken.size} packages apart`);
