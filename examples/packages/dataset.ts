import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { tableFromIPC } from 'apache-arrow';

/** One package as the example stores it. `version` and `architecture` have no field of their own: they go to the dynamic field. */
export interface PackageRow {
  name: string;
  section: string;
  installed_kb: number;
  download_bytes: string;
  essential: boolean;
  homepage: string | null;
  depends: string[];
  tags: Record<string, string[]>;
  summary: string;
  embedding: number[];
  version: string;
  architecture: string;
}

export interface Case {
  readonly id: string;
  readonly filter: string;
  /** Rows that match the filter. */
  readonly matchingRows: number;
  /** Per query: similarities of the exact top 10, best first. */
  readonly similarities: readonly (readonly number[])[];
}

export interface Dataset {
  readonly source: string;
  readonly rows: PackageRow[];
  readonly queries: number[][];
  readonly cases: readonly Case[];
}

export const DIM = 384;

/** The real data set (20,000 packages) from `directory` when it is there, else generated rows with exact answers computed here. */
export function loadDataset(directory: string): Dataset {
  return existsSync(join(directory, 'packages.arrow')) ? readDataset(directory) : generateDataset(2000, 20);
}

function readDataset(directory: string): Dataset {
  const rows: PackageRow[] = [];
  const table = tableFromIPC(readFileSync(join(directory, 'packages.arrow')));
  for (const row of table) {
    rows.push({
      name: row['name'],
      section: row['section'],
      installed_kb: row['installed_kb'],
      download_bytes: String(row['download_bytes']),
      essential: row['essential'],
      homepage: row['homepage'],
      depends: [...row['depends']],
      tags: JSON.parse(row['tags']),
      summary: row['summary'],
      embedding: Array.from(row['embedding'].toArray() as Float32Array),
      version: row['version'],
      architecture: row['architecture'],
    });
  }
  const queries = [...tableFromIPC(readFileSync(join(directory, 'queries.arrow')))].map((row) =>
    Array.from(row['embedding'].toArray() as Float32Array),
  );
  const answers = JSON.parse(readFileSync(join(directory, 'neighbours.json'), 'utf8')) as {
    cases: { id: string; filter: string; matching_rows: number; neighbours: [string, number][][] }[];
  };
  const cases = answers.cases.map((entry) => ({
    id: entry.id,
    filter: entry.filter,
    matchingRows: entry.matching_rows,
    similarities: entry.neighbours.map((list) => list.map(([, similarity]) => similarity)),
  }));
  return { source: `${rows.length} real packages`, rows, queries, cases };
}

/** A small seeded generator, so that every run makes the same rows. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function unitVector(next: () => number): number[] {
  const raw = Array.from({ length: DIM }, () => next() - 0.5);
  const length = Math.hypot(...raw);
  return raw.map((value) => Math.fround(value / length));
}

function generateDataset(count: number, queryCount: number): Dataset {
  const next = generator(7);
  const sections = ['libs', 'python', 'doc', 'games'];
  const rows = Array.from({ length: count }, (_, i): PackageRow => {
    const section = sections[Math.floor(next() * sections.length)] ?? 'libs';
    return {
      name: `${section === 'libs' ? 'lib' : ''}package-${i}`,
      section,
      installed_kb: Math.floor(next() * 5000),
      download_bytes: String(Math.floor(next() * 1e9)),
      essential: next() < 0.01,
      homepage: next() < 0.1 ? null : `https://example.org/${i}`,
      depends: next() < 0.3 ? ['libc6', `libdep${i % 17}`] : [],
      tags: next() < 0.2 ? { role: ['program'] } : {},
      summary: `generated package number ${i}`,
      embedding: unitVector(next),
      version: `1.${i % 10}`,
      architecture: 'all',
    };
  });
  const queries = Array.from({ length: queryCount }, () => unitVector(next));
  const filters: [string, string, (row: PackageRow) => boolean][] = [
    ['all', '', () => true],
    ['libs', 'section == "libs"', (row) => row.section === 'libs'],
    ['no_homepage', 'homepage is null', (row) => row.homepage === null],
    ['needs_libc', 'array_contains(depends, "libc6")', (row) => row.depends.includes('libc6')],
  ];
  const cases = filters.map(([id, filter, matches]) => {
    const matching = rows.filter(matches);
    const similarities = queries.map((query) =>
      matching
        .map((row) => row.embedding.reduce((sum, value, i) => sum + value * (query[i] ?? 0), 0))
        .sort((a, b) => b - a)
        .slice(0, 10),
    );
    return { id, filter, matchingRows: matching.length, similarities };
  });
  return { source: `${count} generated packages (the real data set is not there)`, rows, queries, cases };
}
