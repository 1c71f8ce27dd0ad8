/**
 * Holds the house to its arrows: a room imports only the rooms below it, through their doors, and services never import each other.
 * Reads imports as text; prints each one that points the wrong way and exits 1.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, sep } from 'node:path';

const root = join(import.meta.dirname, '../..');

/** What each room may import. `proto` is open to every room from rpc upwards. */
const allowed: Record<string, readonly string[]> = {
  base: [],
  rpc: ['base', 'proto'],
  meta: ['base'],
  objects: ['base'],
  wal: ['base'],
  telemetry: ['base'],
  schema: ['base', 'proto'],
  catalog: ['base', 'meta', 'proto', 'schema'],
  segment: ['base', 'objects', 'proto', 'schema'],
  expr: ['base', 'schema'],
  index: ['base', 'schema', 'segment'],
  query: ['base', 'proto', 'schema', 'segment', 'expr', 'index'],
  stores: ['base', 'meta', 'objects', 'wal'],
};
const libs = Object.keys(allowed);
const serviceMay = [...libs, 'proto'];

function* files(directory: string): Generator<string> {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.name === 'node_modules' || entry.name === 'gen') continue;
    const path = join(directory, entry.name);
    if (entry.isDirectory()) yield* files(path);
    else if (entry.name.endsWith('.ts')) yield path;
  }
}

interface Room {
  readonly group: string;
  readonly name: string;
  readonly isTest: boolean;
}

function roomOf(path: string): Room {
  const [group = '', name = '', part = ''] = relative(root, path).split(sep);
  return { group, name, isTest: part === 'test' };
}

/** Doors of a lib beside its index.ts, by its package.json. */
function doorsOf(room: string): string[] {
  const file = join(root, libs.includes(room) ? 'libs' : 'services', room, 'package.json');
  return Object.keys((JSON.parse(readFileSync(file, 'utf8')) as { exports?: Record<string, string> }).exports ?? {});
}

function problem(path: string, target: string): string | undefined {
  const from = roomOf(path);
  if (target.startsWith('.')) {
    const to = roomOf(join(path, '..', target));
    const leaves = to.group !== from.group || to.name !== from.name;
    const testSupport = from.isTest && to.group === 'tests';
    return leaves && !testSupport ? 'reaches into another room by path; use its door' : undefined;
  }
  const match = /^@cairn\/([a-z]+)(\/.*)?$/.exec(target);
  if (!match?.[1]) return undefined;
  const to = match[1];
  if (to === from.name || from.isTest) return undefined;
  if (match[2] && to !== 'proto' && (match[2] === '/testing' || match[2] === '/simulation' || !doorsOf(to).includes(`.${match[2]}`)))
    return 'goes past the door of the room';
  if (from.group === 'libs' && !(allowed[from.name] ?? []).includes(to))
    return `libs/${from.name} may import only: ${(allowed[from.name] ?? []).join(', ') || 'nothing'}`;
  if (from.group === 'services' && from.name !== 'standalone' && !serviceMay.includes(to)) return 'a service never imports another service';
  return undefined;
}

let wrong = 0;
for (const group of ['libs', 'services', 'tools/cli']) {
  for (const path of files(join(root, group))) {
    const text = readFileSync(path, 'utf8');
    for (const match of text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)) {
      const found = match[1] && problem(path, match[1]);
      if (!found) continue;
      wrong++;
      console.error(`${relative(root, path)} -> ${match[1]}: ${found}`);
    }
  }
}
if (wrong > 0) process.exit(1);
console.log('arrows: all imports point the right way');
