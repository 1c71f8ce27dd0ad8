import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const table = readFileSync(join(root, 'tests/README.md'), 'utf8').split('## What is known to go wrong elsewhere')[1] ?? '';
const rows = [...table.matchAll(/^\| (.+?) \| (.+?) \| (.*?) \| (.+) \|$/gm)].map(([, issue = '', , file = '', name = '']) => ({
  issue,
  file,
  name,
}));
const held = rows.filter(({ file }) => file.startsWith('`'));

describe('what is known to go wrong elsewhere has its test here', () => {
  test('each row names a test, or why there is none', () => {
    const others = rows.filter((row) => !held.includes(row) && row.issue !== 'issue' && row.issue !== 'race');
    expect(others.filter(({ name }) => !name.startsWith('postponed: '))).toEqual([]);
    expect(held.length).toBeGreaterThan(70);
  });
  test.each(held)('$issue: $name', ({ file, name }) => {
    const source = readFileSync(join(root, file.replaceAll('`', '')), 'utf8');
    expect([`'${name}'`, `"${name}"`, `\`${name}\``].some((text) => source.includes(text))).toBe(true);
  });
});
