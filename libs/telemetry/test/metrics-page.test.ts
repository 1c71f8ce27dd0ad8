import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '../../..');

test('the page for people names every metric that the sources declare, and no other', () => {
  const sources = ['libs', 'services']
    .flatMap((folder) => readdirSync(join(root, folder)).map((room) => join(root, folder, room, 'src')))
    .flatMap((folder) =>
      readdirSync(folder, { recursive: true, encoding: 'utf8' })
        .filter((file) => file.endsWith('.ts'))
        .map((file) => readFileSync(join(folder, file), 'utf8')),
    );
  const declared = new Set(
    sources.flatMap((text) => [...text.matchAll(/(?:gauge|counter|histogram)(?:<[^(]*>)?\(\s*'(cairn_\w+)'/g)].map((match) => match[1])),
  );
  const page = readFileSync(join(root, 'docs/metrics.md'), 'utf8');
  const named = new Set([...page.matchAll(/`(cairn_\w+)`/g)].map((match) => match[1]));
  expect([...named].sort()).toEqual([...declared].sort());
});
