import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '..');
/** It damages what it restores: what the checker would find is what each of its cells is about. */
const DAMAGING = 'restore-matrix.test.ts';

test('every suite against real servers ends with the consistency checker', () => {
  const without = ['e2e', 'sdk'].flatMap((folder) =>
    readdirSync(join(root, folder))
      .filter((name) => name.endsWith('.test.ts') && name !== DAMAGING)
      .filter((name) => !/\b(stopChecked|findingsOf)\(|'check', '--deep'/.test(readFileSync(join(root, folder, name), 'utf8'))),
  );
  expect(without).toEqual([]);
});
