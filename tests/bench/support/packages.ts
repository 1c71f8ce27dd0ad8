/** The data set of packages (20,000 × 384 and 500 queries), or generated vectors of the same shape where it is absent. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { tableFromIPC } from 'apache-arrow';
import { seeded } from '../../support/workload.ts';
import { clusteredVectors } from './requests.ts';

export const PACKAGES_DIM = 384;

export interface PackagesData {
  readonly vectors: Float32Array;
  readonly queries: Float32Array;
  readonly source: 'packages' | 'generated';
}

export function packagesData(): PackagesData {
  const directory = join(import.meta.dirname, '../../../../shared/data/packages');
  if (!existsSync(join(directory, 'packages.arrow')))
    return {
      vectors: clusteredVectors(20_000, PACKAGES_DIM, seeded(1)),
      queries: clusteredVectors(500, PACKAGES_DIM, seeded(1)),
      source: 'generated',
    };
  const columnOf = (file: string): Float32Array => {
    const table = tableFromIPC(readFileSync(join(directory, file)));
    const all = new Float32Array(table.numRows * PACKAGES_DIM);
    let at = 0;
    for (const row of table.getChild('embedding') ?? []) {
      all.set(row.toArray() as Float32Array, at);
      at += PACKAGES_DIM;
    }
    return all;
  };
  return { vectors: columnOf('packages.arrow'), queries: columnOf('queries.arrow'), source: 'packages' };
}
