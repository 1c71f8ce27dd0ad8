import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const rows = [...readFileSync(join(root, 'tests/README.md'), 'utf8').matchAll(/^\| (.+?) \| `(.+?\.test\.ts)` \| (.+) \|$/gm)];

describe('what is known to go wrong elsewhere has its test here', () => {
  test('the table has rows', () => expect(rows.length).toBeGreaterThan(20));
  test.each(rows.map(([, issue = '', file = '', name = '']) => [issue, file, name]))('%s', (_issue, file, name) => {
    const quoted = [`'${name}'`, `"${name}"`, `\`${name}\``];
    const source = readFileSync(join(root, file), 'utf8');
    expect(quoted.some((text) => source.includes(`test(${text}`))).toBe(true);
  });
});
