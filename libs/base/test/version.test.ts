import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { CAIRN_VERSION } from '../src/index.ts';

test("Cairn's own version is that of package.json", () => {
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../../package.json'), 'utf8')) as { version: string };
  expect(CAIRN_VERSION).toBe(version);
});
